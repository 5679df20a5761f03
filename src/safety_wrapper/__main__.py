"""``python -m safety_wrapper``."""

from safety_wrapper.cli import main

main()
