"""``demo --openclaw``: the scenes of the demo through a real gateway. The gateway and its stand-in model provider are
fetched and kept beside the checkout; an installed wheel does not carry them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from safety_wrapper.errors import ConfigError

if TYPE_CHECKING:
    from safety_wrapper.cli.demo import Scene

_PLAY: Final = Path("examples", "openclaw_demo", "play.py")


def play(show: Callable[[Scene], None]) -> list[Scene]:
    """Play the scenes. Raises ConfigError outside a checkout."""
    import safety_wrapper

    script = Path(safety_wrapper.__file__).parents[2] / _PLAY
    spec = importlib.util.spec_from_file_location("openclaw_demo", script) if script.is_file() else None
    if spec is None or spec.loader is None:
        raise ConfigError(
            "the demo with a real gateway needs a checkout", do="clone the project, then ./dev demo --openclaw"
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    scenes: list[Scene] = module.play(show)
    return scenes
