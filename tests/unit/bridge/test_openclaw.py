"""What the installer writes, and that nobody but the installer can change it."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from safety_wrapper import config as configuration
from safety_wrapper.bridge import openclaw, openclaw_doctor
from safety_wrapper.bridge.openclaw import Layout, Plan
from safety_wrapper.config import Config
from safety_wrapper.errors import ConfigError
from safety_wrapper.policy import Bundle, parse
from unit.shim.shim import TOOLS


@pytest.fixture
def config(tmp_path: Path) -> Config:
    gateway = {
        "home": str(tmp_path / "home"),
        "config": str(tmp_path / "openclaw" / "openclaw.json"),
        "token_file": str(tmp_path / "token"),
    }
    paths = {"state": str(tmp_path / "state"), "run": "/run/safety-wrapper", "bundle": str(tmp_path / "bundle")}
    return configuration.parse({"paths": paths, "gateway": gateway}, {})


def planned(config: Config, existing: dict[str, Any] | None = None) -> Plan:
    program = config.paths.state.parent / "program" / "openclaw.mjs"
    return openclaw.plan(config, TOOLS, existing=existing or {}, node=Path("/usr/bin/node"), program=program)


@pytest.fixture
def installed(config: Config) -> Layout:
    program = config.paths.state.parent / "program"
    program.mkdir()
    (program / "openclaw.mjs").touch()
    (program / "package.json").write_text(json.dumps({"version": openclaw.GATEWAY_VERSION}))
    openclaw.apply(planned(config), config)
    return openclaw.layout_of(config)


def faults(config: Config) -> set[str]:
    return {finding.name for finding in openclaw_doctor.examine(config) if not finding.ok}


# ── tools ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_tools_json_does_not_depend_on_the_order_given() -> None:
    assert openclaw.tools_json(TOOLS) == openclaw.tools_json(list(reversed(TOOLS)))


@pytest.mark.parametrize(
    "tools",
    [
        [],
        [*TOOLS, TOOLS[0]],
        [{**TOOLS[0], "name": "exec"}],
        [{**TOOLS[0], "name": "sw_A"}],
        [{**TOOLS[0], "name": "sw_" + "a" * 62}],
        [{**TOOLS[0], "parameters": []}],
        [{**TOOLS[0], "execute": "evil"}],
        [{"name": "sw_exec"}],
    ],
)
def test_a_list_that_can_not_be_offered_is_refused(tools: list[dict[str, Any]]) -> None:
    with pytest.raises(ConfigError):
        openclaw.tools_json(tools)


def test_the_manifest_declares_each_tool() -> None:
    manifest = json.loads(openclaw.manifest(openclaw.tools_json(TOOLS)))
    assert manifest["contracts"]["tools"] == ["sw_exec", "sw_http__request"]
    assert manifest["id"] == "safety-wrapper"


def test_the_base_policys_tools_are_offered_in_the_providers_dialect(base_bundle: bytes) -> None:
    bundle: Bundle = parse(base_bundle)
    tools = openclaw.offered_tools(bundle)
    assert {tool["name"] for tool in tools} >= {"sw_exec", "sw_read", "sw_write", "sw_edit", "sw_list", "sw_resume"}
    assert "propertyNames" not in openclaw.tools_json(tools).decode()
    exec_tool = next(tool for tool in tools if tool["name"] == "sw_exec")
    assert exec_tool["parameters"]["required"] == ["command"]
    assert exec_tool["parameters"]["additionalProperties"] is False


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_planning_writes_nothing(config: Config, tmp_path: Path) -> None:
    planned(config)
    assert list(tmp_path.iterdir()) == []


def test_every_file_is_sealed_and_the_home_is_the_gateways_alone(config: Config, installed: Layout) -> None:
    files = [path for path in installed.folder.rglob("*") if path.is_file()]
    assert len(files) == len(openclaw.shim_files()) + 6
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) == 0o440
        assert path.stat().st_uid == os.getuid()
    for folder in (installed.home, installed.home / "state", installed.home / "tmp"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_the_plugin_is_the_shipped_code_with_the_tools(installed: Layout) -> None:
    present = {path.name: path.read_bytes() for path in installed.plugin.iterdir()}
    assert {name: present[name] for name in openclaw.shim_files()} == dict(openclaw.shim_files())
    assert present["tools.json"] == openclaw.tools_json(TOOLS)
    record = json.loads(installed.record.read_bytes())
    assert record["shim_sha256"] == openclaw.shim_sha256()
    assert record["tools_sha256"] == openclaw.tools_sha256(TOOLS)


def test_the_token_is_long_in_one_file_for_the_waker_and_kept_by_the_next_install(
    config: Config, installed: Layout, tmp_path: Path
) -> None:
    token = json.loads(installed.config.read_bytes())["gateway"]["auth"]["token"]
    assert len(token) >= 32
    assert (tmp_path / "token").read_text().strip() == token
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o400
    openclaw.apply(planned(config), config)
    assert json.loads(installed.config.read_bytes())["gateway"]["auth"]["token"] == token
    assert token not in installed.environment.read_text()
    assert token not in installed.unit.read_text()


@pytest.mark.parametrize("token", ["short", "${OPENCLAW_GATEWAY_TOKEN}" + "x" * 32, 5, None])
def test_a_weak_token_is_not_kept(config: Config, token: Any) -> None:
    plan = planned(config, {"gateway": {"auth": {"token": token}}})
    (file,) = [file for file in plan.files if file.path.name == "openclaw.json"]
    assert json.loads(file.data)["gateway"]["auth"]["token"] != token


def test_a_second_install_removes_what_is_foreign(config: Config, installed: Layout) -> None:
    (installed.plugin / "extra.js").write_text("evil()")
    (installed.plugin / "node_modules").mkdir()
    openclaw.apply(planned(config), config)
    assert not (installed.plugin / "extra.js").exists()
    assert not (installed.plugin / "node_modules").exists()


def test_uninstall_gives_the_former_configuration_back(config: Config, tmp_path: Path) -> None:
    before = b'{"models": {}}'
    openclaw.apply(planned(config), config, existing=before)
    layout = openclaw.layout_of(config)
    openclaw.apply(planned(config), config, existing=b"{}")  # a second install keeps the first backup
    restored = tmp_path / "restored.json"
    assert openclaw.uninstall(layout, restored)
    assert restored.read_bytes() == before
    assert [path for path in layout.folder.rglob("*") if path.is_file()] == []
    assert not openclaw.uninstall(layout)


def test_a_path_too_long_for_a_socket_is_refused(config: Config) -> None:
    paths = config.paths.model_copy(update={"run": Path("/" + "r" * 100)})
    with pytest.raises(ConfigError, match="too long"):
        planned(config.model_copy(update={"paths": paths}))


# ── doctor ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_fresh_installation_has_no_fault(config: Config, installed: Layout) -> None:
    assert faults(config) == set()


def test_nothing_installed_is_a_finding(config: Config) -> None:
    assert faults(config) == {"installed"}


def _append(path: Path, text: str) -> None:
    path.chmod(0o640)
    path.write_text(path.read_text() + text)
    path.chmod(0o440)


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        ("files", lambda layout: _append(layout.plugin / "gates.js", "\n//")),
        ("files", lambda layout: _append(layout.config, " ")),
        ("files", lambda layout: _append(layout.environment, "A=1\n")),
        ("files", lambda layout: (layout.plugin / "tools.json").unlink()),
        ("plugin folder", lambda layout: (layout.plugin / "extra.js").write_text("")),
        ("plugin folder", lambda layout: (layout.plugin / "extra.js").symlink_to("/etc/passwd")),
        ("owners", lambda layout: layout.config.chmod(0o460)),
        ("owners", lambda layout: layout.plugin.chmod(0o777)),
        ("installed", lambda layout: _append(layout.record, "}")),
    ],
)
def test_each_harm_is_found(config: Config, installed: Layout, name: str, harm: Any) -> None:
    harm(installed)
    assert name in faults(config)


def test_a_file_replaced_by_a_link_to_its_copy_is_found(config: Config, installed: Layout, tmp_path: Path) -> None:
    gates = installed.plugin / "gates.js"
    copy = tmp_path / "copy.js"
    copy.write_bytes(gates.read_bytes())
    gates.unlink()
    gates.symlink_to(copy)
    assert {"files", "plugin folder"} <= faults(config)


def test_a_file_of_another_user_is_found(config: Config, installed: Layout) -> None:
    owner = os.getuid()
    if owner == 0:  # only root can give a file away; others compare with a stranger's
        os.chown(installed.config, 64104, 64104)
        assert "owners" in faults(config)
    else:
        assert openclaw_doctor.loose(installed.config, owner + 1)


def test_another_version_of_the_gateway_is_found(config: Config, installed: Layout, tmp_path: Path) -> None:
    (tmp_path / "program" / "package.json").write_text('{"version": "2026.9.7"}')
    assert faults(config) == {"program"}
    (tmp_path / "program" / "package.json").unlink()
    assert faults(config) == {"program"}


def test_another_profile_than_the_configured_one_is_found(config: Config, installed: Layout) -> None:
    gateway = config.gateway.model_copy(update={"profile": "builtin"})
    changed = config.model_copy(update={"gateway": gateway})
    assert faults(changed) == {"profile"}
    assert any("before_tool_call" in f.detail for f in openclaw_doctor.examine(changed) if f.weaker)


def test_a_dotenv_of_the_gateway_is_mentioned(config: Config, installed: Layout) -> None:
    (installed.home / "state" / ".env").write_text("HTTPS_PROXY=http://evil.example")
    assert any(".env exists" in f.detail for f in openclaw_doctor.examine(config))


@pytest.mark.parametrize(
    ("gateway", "ok"),
    [
        ({"connected": False, "ready": False, "version": None}, False),
        ({"connected": True, "ready": False, "version": "2026.9.6"}, False),
        ({"connected": True, "ready": True, "version": "2026.9.6"}, True),
    ],
)
def test_the_running_gateway_is_judged_by_what_the_core_says(gateway: dict[str, Any], ok: bool) -> None:
    assert openclaw_doctor.running({"gateway": gateway}).ok is ok
