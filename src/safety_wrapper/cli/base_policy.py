"""Where the base policy's sources lie: in the wheel, or beside this checkout."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from safety_wrapper.errors import ConfigError


def source() -> Path:
    """The folder of policy_bundles/base. Raises ConfigError when this installation came without it."""
    import safety_wrapper

    shipped = Path(str(resources.files(safety_wrapper) / "policy_bundles" / "base"))
    checkout = Path(safety_wrapper.__file__).parents[2] / "policy_bundles" / "base"
    for folder in (shipped, checkout):
        if (folder / "bundle.yaml").is_file():
            return folder
    raise ConfigError("the base policy is not installed", do="install safety-wrapper from its wheel or a checkout")


def compiled() -> bytes:
    """The base policy, compiled. Raises ConfigError, BundleError."""
    from safety_wrapper.cli.policy_source import compile_source

    return compile_source(source())
