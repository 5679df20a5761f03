"""Code of the gateway's uid tries to change what the gateway is: its configuration, its plugin, its environment."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from safety_wrapper import installation
from safety_wrapper.bridge import openclaw, openclaw_unit
from safety_wrapper.identity import become, resolve
from safety_wrapper.installation import Installation


@pytest.fixture(scope="module")
def installed(module_room: Path, base_bundle: bytes) -> tuple[Installation, openclaw.Layout]:
    changes = {
        "gateway": {"home": str(module_room / "home"), "config": str(module_room / "openclaw" / "openclaw.json")}
    }
    made = installation.create(module_room, base_bundle, changes=changes)
    tools = openclaw.offered_tools(made.bundle)
    plan = openclaw.plan(made.config, tools, existing={}, node=Path("/usr/bin/node"), program=Path("/usr/bin/openclaw"))
    openclaw.apply(plan, made.config)
    return made, openclaw.layout_of(made.config)


def as_gateway(made: Installation, deed: Callable[[], object]) -> str:
    """What happens when the gateway's user does it: ``done`` or the kind of error."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        said = "done"
        try:
            become(resolve(made.config.users).gateway)
            deed()
        except OSError as exc:
            said = type(exc).__name__
        finally:
            os.write(write, said.encode())
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(write)
    with os.fdopen(read) as stream:
        return stream.read()


def test_gateways_user_edits_its_configuration_or_its_plugin(installed: tuple[Installation, openclaw.Layout]) -> None:
    made, layout = installed
    assert resolve(made.config.users).apart, "this attack needs the users apart: run the tests as root"
    files = [layout.config, layout.environment, layout.record, *layout.plugin.iterdir()]
    assert len(files) > 8
    for path in files:
        before = path.read_bytes()
        assert as_gateway(made, lambda path=path: path.write_text("{}")) == "PermissionError", path
        assert as_gateway(made, lambda path=path: path.unlink()) == "PermissionError", path
        assert as_gateway(made, lambda path=path: path.chmod(0o666)) == "PermissionError", path
        assert path.read_bytes() == before
    for folder in {path.parent for path in files}:
        assert as_gateway(made, lambda folder=folder: (folder / "more.js").write_text("x")) == "PermissionError", folder
    own = layout.home / "workspace"
    assert as_gateway(made, lambda: (own / "note.txt").write_text("x")) == "done", "the twin: its own home"


def test_gateways_user_reads_our_keys_and_ledger(installed: tuple[Installation, openclaw.Layout]) -> None:
    made, layout = installed
    paths = made.config.paths
    assert as_gateway(made, paths.ledger_key.read_bytes) == "PermissionError"
    assert as_gateway(made, lambda: list(paths.ledger.parent.iterdir())) == "PermissionError"
    assert as_gateway(made, (made.root / "bundle-key.pem").read_bytes) == "PermissionError"
    assert as_gateway(made, paths.stop_file.touch) == "PermissionError"
    assert as_gateway(made, lambda: list(made.workspace.iterdir())) == "PermissionError"
    assert as_gateway(made, layout.config.read_bytes) == "done", "the twin: what it needs"


def test_a_dot_env_of_the_gateways_own_sets_nothing_that_matters(
    installed: tuple[Installation, openclaw.Layout],
) -> None:
    """The gateway loads a .env that its own user can write; what its unit has set stays, even empty."""
    _, layout = installed
    environment = openclaw_unit.environment(layout.home, layout.config)
    wanted = {
        "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "NODE_OPTIONS",
        "NODE_EXTRA_CA_CERTS", "NODE_TLS_REJECT_UNAUTHORIZED", "LD_PRELOAD", "OPENCLAW_CONFIG_PATH",
        "OPENCLAW_STATE_DIR", "OPENCLAW_HOME", "OPENCLAW_CONFIG_READONLY", "OPENCLAW_NO_AUTO_UPDATE", "HOME", "PATH",
    }  # fmt: skip
    assert wanted <= environment.keys(), sorted(wanted - environment.keys())
    assert environment["OPENCLAW_CONFIG_READONLY"] == "1"
    assert environment["NODE_OPTIONS"] == ""
