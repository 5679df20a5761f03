"""``safety-wrapper policy``, run as a person would: from YAML to a bundle in force in a running core."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from safety_wrapper.cli.policy import policy
from safety_wrapper.policy import activation, parse
from safety_wrapper.testing import live
from unit.cli.conftest import Ran, Run
from unit.cli.test_policy_source import FILES, HEAD, write

BASE = str(Path(__file__).parents[3] / "policy_bundles" / "base")


@pytest.fixture
def source(tmp_path: Path) -> str:
    return str(write(tmp_path / "source", FILES))


@pytest.fixture
def trusted(run: Run, source: str) -> str:
    """A built and signed bundle in ``out``; what is to be trusted of its key."""
    assert run("policy", "build", source, "-o", "out").code == 0
    key = run("policy", "keys", "new", "a.key", "--json").json
    assert run("policy", "sign", "out", "--key", "a.key").code == 0
    return f"{key['kid']}={key['ed25519']}"


# ── build, keys, sign, verify ────────────────────────────────────────────────────────────────────────────────────


def test_build_writes_the_bytes_it_names(run: Run, source: str) -> None:
    built = run("policy", "build", source, "-o", "out", "--json")
    bundle = parse(Path("out/bundle.json").read_bytes())
    assert built.code == 0
    assert built.json["bundle"]["sha256"] == bundle.sha256
    assert built.json["bundle"]["rules"] == 1
    assert "sample version 3" in run("policy", "build", source, "-o", "out").out


def test_build_of_a_faulty_source_is_a_finding(run: Run, source: str) -> None:
    Path(source, "bundle.yaml").write_text(HEAD.replace("version: 3", "version: 0"))
    built = run("policy", "build", source, "-o", "out")
    assert built.code == 1
    assert "bundle.yaml:2: 0 is less than" in built.err
    assert not Path("out").exists()


def test_building_other_bytes_takes_the_old_signature_away(run: Run, source: str, trusted: str) -> None:
    assert run("policy", "build", source, "-o", "out").code == 0
    assert Path("out/bundle.sig").exists()  # the same bytes: still signed
    Path(source, "bundle.yaml").write_text(HEAD.replace("version: 3", "version: 4"))
    assert run("policy", "build", source, "-o", "out").code == 0
    assert not Path("out/bundle.sig").exists()
    assert run("policy", "verify", "out", "--trust", trusted).code == 5


def test_a_signed_bundle_verifies(run: Run, trusted: str) -> None:
    verified = run("policy", "verify", "out", "--trust", trusted, "--json")
    assert verified.code == 0
    assert verified.json["signed_by"] == [trusted.partition("=")[0]]
    assert verified.json["degraded"] is None
    assert "signed by" in run("policy", "verify", "out", "--trust", trusted).out


def test_verify_uses_the_configured_keys(run: Run, trusted: str) -> None:
    config = json.loads(Path("config.json").read_text())
    kid, _, key = trusted.partition("=")
    assert run("policy", "verify", "out").code == 5
    config["trust"] = {"bundle_keys": [{"kid": kid, "ed25519": key}], "threshold": 1}
    Path("config.json").write_text(json.dumps(config))
    assert run("policy", "verify", "out").code == 0


def test_an_altered_or_strange_bundle_is_not_trusted(run: Run, trusted: str) -> None:
    other = run("policy", "keys", "new", "b.key", "--json").json
    assert run("policy", "verify", "out", "--trust", f"{other['kid']}={other['ed25519']}").code == 5
    assert run("policy", "verify", "out", "--trust", trusted, "--threshold", "2").code == 5
    data = Path("out/bundle.json").read_bytes()
    Path("out/bundle.json").write_bytes(data.replace(b"CRITICAL_RED", b"RED"))
    refused = run("policy", "verify", "out", "--trust", trusted, "--json")
    assert (refused.code, refused.json["error"]["code"]) == (5, "bundle")


def test_an_expired_bundle_is_degraded_then_refused(run: Run, source: str) -> None:
    key = run("policy", "keys", "new", "a.key", "--json").json
    day_s = 24 * 3600
    for age_s, code in ((day_s, 1), (31 * day_s, 5)):
        at = str(int(time.time()) - age_s)
        Path(source, "bundle.yaml").write_text(HEAD.replace("2027-06-30", at))
        run("policy", "build", source, "-o", "out")
        run("policy", "sign", "out", "--key", "a.key")
        assert run("policy", "verify", "out", "--trust", f"{key['kid']}={key['ed25519']}").code == code


def test_two_people_sign_one_bundle(run: Run, trusted: str) -> None:
    second = run("policy", "keys", "new", "b.key", "--kid", "second", "--json").json
    both = ("--trust", trusted, "--trust", f"second={second['ed25519']}", "--threshold", "2")
    assert run("policy", "verify", "out", *both).code == 5
    assert run("policy", "sign", "out", "--key", "b.key", "--kid", "second").code == 0
    assert run("policy", "verify", "out", *both).code == 0


def test_a_new_key_is_private_and_shown_again(run: Run) -> None:
    made = run("policy", "keys", "new", "a.key", "--kid", "mine")
    assert stat.S_IMODE(Path("a.key").stat().st_mode) == 0o600
    assert "PRIVATE" not in made.out
    assert run("policy", "keys", "show", "a.key", "--kid", "mine").out == made.out
    assert run("policy", "keys", "new", "a.key").code == 2
    Path("a.key").chmod(0o644)
    assert run("policy", "keys", "show", "a.key").code == 2


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff"])
def test_what_is_no_bundle_is_not_signed(run: Run, trusted: str, damage: bytes) -> None:
    before = Path("out/bundle.sig").read_bytes()
    Path("out/bundle.json").write_bytes(damage)
    assert run("policy", "sign", "out", "--key", "a.key").code == 5
    assert Path("out/bundle.sig").read_bytes() == before


@pytest.mark.parametrize(
    "args",
    [
        ("build", "missing", "-o", "out"),
        ("build", "."),
        ("sign", "source", "--key", "a.key"),
        ("verify", "out", "--trust", "nothing"),
        ("explain", "source"),
        ("explain", "source", "--tool", "exec", "--params", "{"),
        ("explain", "source", "--tool", "exec", "--params", "[]"),
        ("explain", "source", "--tool", "exec", "--params", '{"a":1,"a":2}'),
        ("explain", "source", "--tool", "exec", "--context", '{"evil":1}'),
        ("explain", "source", "--tool", "exec", "--context", '{"cwd":1}'),
        ("explain", "source", "--tool", "exec", "--kind", "shell"),
    ],
    ids=range(11),
)
def test_wrong_usage_is_told(run: Run, trusted: str, args: tuple[str, ...]) -> None:
    told = run("policy", *args)
    assert told.code == 2
    assert told.err.count("\n") == 1


# ── lint, test, explain ──────────────────────────────────────────────────────────────────────────────────────────


def test_lint_names_what_is_wrong_and_what_is_missing(run: Run, source: str) -> None:
    assert run("policy", "lint", source).code == 0
    Path(source, "suite", "base.yaml").write_text("[]")
    found = run("policy", "lint", source, "--json")
    assert found.code == 1
    assert [one["message"] for one in found.json["findings"]] == [
        "the suite has no case beside the rules' own examples"
    ]
    Path(source, "rules", "files.yaml").write_text("- id: a\n- id: b\n")
    found = run("policy", "lint", source)
    assert found.code == 1
    assert "rules/files.yaml:1: a: needs at least one example under match" in found.out
    assert "rules/files.yaml:2: b: " in found.out


def test_the_base_policy_passes_its_own_suite(run: Run) -> None:
    tested = run("policy", "test", BASE, "--json")
    assert tested.json["failures"] == []
    assert tested.json["cases"] >= 100
    assert tested.code == 0


def test_a_failing_case_is_a_finding(run: Run, tmp_path: Path) -> None:
    files = {str(path.relative_to(BASE)): path.read_text() for path in Path(BASE).rglob("*.yaml")}
    files["suite/more.yaml"] = "- {id: zz.wrong, tool: exec, params: {command: ls}, expect: {class: CRITICAL_RED}}\n"
    folder = str(write(tmp_path / "copy", files))
    tested = run("policy", "test", folder)
    assert tested.code == 1
    assert "zz.wrong: class CRITICAL_RED expected, GREEN came" in tested.out
    assert "1 failed" in tested.out
    assert "installed plugins" in tested.err


def test_a_built_bundle_is_tested_too(run: Run) -> None:
    assert run("policy", "build", BASE, "-o", "out").code == 0
    assert run("policy", "test", "out", "--json").code == 0


def test_a_bundle_without_cases_is_not_called_tested(run: Run, source: str) -> None:
    for folder in ("rules", "suite"):
        for path in Path(source, folder).iterdir():
            path.unlink()
    assert run("policy", "test", source).code == 1


EXPLAINED: list[tuple[tuple[str, ...], dict[str, Any]]] = [
    (("--tool", "exec", "--params", '{"command":"ls"}'), {"outcome": "allow", "class": "GREEN"}),
    (("--tool", "exec", "--params", '{"command":"rm -r /srv/x"}'), {"outcome": "require_approval", "class": "RED"}),
    (
        ("--tool", "exec", "--params", '{"command":"rm -r /srv/x"}', "--context", '{"level":3}'),
        {"outcome": "allow", "class": "RED", "level": 3},
    ),
    (("--tool", "nothing"), {"outcome": "block", "rules": ["sw.unlisted"]}),
    (("--tool", "exec", "--params", '{"command":1}'), {"outcome": "block", "rules": ["sw.malformed"]}),
    (("--tool", "exec", "--kind", "builtin", "--params", '{"command":"ls"}'), {"tool": "builtin:exec"}),
]


@pytest.mark.parametrize(("args", "expected"), EXPLAINED, ids=range(len(EXPLAINED)))
def test_explain_says_outcome_class_and_rules(run: Run, args: tuple[str, ...], expected: dict[str, Any]) -> None:
    explained = run("policy", "explain", BASE, *args, "--json")
    assert explained.code == 0
    assert {key: explained.json[key] for key in expected} == expected


def test_explain_for_people_shows_values_so_that_nothing_hides(run: Run) -> None:
    params = json.dumps({"command": "rm /srv/a\u202eb"})
    explained = run("policy", "explain", BASE, "--tool", "exec", "--params", params)
    assert "Outcome" in explained.out
    assert "\u202e" not in explained.out


# ── activate, state ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def core(room: Path, base_bundle: bytes) -> Iterator[live.Live]:
    """A whole installation, running, with the base policy in force."""
    with live.running(room, base_bundle) as running:
        yield running


def test_a_bundle_comes_into_force_and_never_goes_back(
    run: Run, core: live.Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAFETY_WRAPPER_CONFIG", str(core.made.config_path))
    key = str(core.made.root / "bundle-key.pem")
    kid = core.config.trust.bundle_keys[0].kid
    files = {str(path.relative_to(BASE)): path.read_text() for path in Path(BASE).rglob("*.yaml")}
    old = parse((core.config.paths.bundle / "current" / "bundle.json").read_bytes())
    drop = readable_folder(core)

    def release(version: int, name: str, *, summary: str = "", by: str = key) -> str:
        head = files["bundle.yaml"].replace(f"version: {old.version}", f"version: {version}") + summary
        made = str(write(tmp_path / f"src-{name}", {**files, "bundle.yaml": head}))
        out = str(drop / name)
        assert run("policy", "build", made, "-o", out).code == 0
        assert run("policy", "sign", out, "--key", by, "--kid", kid).code == 0
        return out

    def in_force() -> int:
        state = run("policy", "state", "--json")
        assert state.code == 0
        return int(state.json["bundle"]["version"])

    newer, older = release(old.version + 2, "newer"), release(old.version + 1, "older")
    run("policy", "keys", "new", "stranger.key")
    foreign = release(old.version + 3, "foreign", by="stranger.key")
    assert in_force() == old.version

    activated = run("policy", "activate", newer)
    assert (activated.code, "in force" in activated.out) == (0, True)
    assert in_force() == old.version + 2
    assert installed_version(core) == old.version + 2

    (drop / "empty").mkdir()
    (drop / "closed").mkdir(mode=0)
    reasons = {older: "older than", foreign: "signed by 0 of the 1", str(drop / "empty"): "can't be read"}
    if os.getuid() == 0:  # only then does the core run as another user
        reasons[str(drop / "closed")] = "can't be opened"
    for folder, why in reasons.items():
        refused = run("policy", "activate", folder)
        assert refused.code == 1
        assert why in refused.err
        assert in_force() == old.version + 2

    core.kill("core")
    core.wait_ready()
    assert in_force() == old.version + 2


def readable_folder(core: live.Live) -> Path:
    """A folder that the core's user can read: the owner hands a bundle over by its path."""
    folder = core.made.root / "drop"
    folder.mkdir(mode=0o755)
    return folder


def installed_version(core: live.Live) -> int:
    name = (core.config.paths.bundle / activation.CURRENT).readlink()
    return int(str(name).partition("-")[0])


@pytest.mark.parametrize("args", [("activate", "."), ("state",)], ids=["activate", "state"])
def test_without_a_core_the_exit_code_says_so(run: Run, args: tuple[str, ...]) -> None:
    assert run("policy", *args).code == 3


# ── the group itself ─────────────────────────────────────────────────────────────────────────────────────────────


def test_every_command_has_a_purpose_and_an_example() -> None:
    commands = dict(policy.commands)
    keys = commands.pop("keys")
    commands |= {f"keys {name}": command for name, command in keys.commands.items()}  # type: ignore[attr-defined]
    names = ["build", "sign", "verify", "lint", "test", "explain", "activate", "state"]
    assert set(commands) == {*names, "keys new", "keys show"}
    for name, command in commands.items():
        text = command.help or ""
        assert len(text.splitlines()[0]) <= 80
        assert f"Example:\n  safety-wrapper policy {name}" in text


def test_importing_the_group_loads_nothing_heavy() -> None:
    code = "import sys, safety_wrapper.cli.policy; print([m for m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for heavy in ("yaml", "rich", "pydantic", "jsonschema_rs", "cryptography", "pluggy", "asyncio", "orjson"):
        assert f"'{heavy}'" not in loaded


def test_a_failure_is_one_line(run: Run, source: str) -> None:
    told: Ran = run("policy", "verify", source, "--json")
    assert list(told.json) == ["error"]
