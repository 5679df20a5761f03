"""Which bundle may be in force: the laws, and every trick with the files. Each refusal has an allowed twin."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from safety_wrapper.errors import (
    BundleError,
    BundleExpiredError,
    BundleFormatError,
    BundleRollbackError,
    BundleSignatureError,
)
from safety_wrapper.policy import Bundle, activation, parse
from safety_wrapper.policy.activation import GRACE_S, folder_name, judge
from safety_wrapper.policy.bundle import MAX_BUNDLE_BYTES
from safety_wrapper.policy.signing import Keys
from unit.policy.samples import EXPIRES_AT, NOW, FloorRow, compiled, new_key, signed

KEY = new_key()
TRUST = Keys((KEY[1],))


def floor_of(data: bytes) -> FloorRow:
    bundle = parse(data)
    return FloorRow(bundle.version, bundle.sha256)


def judged(data: bytes, floor: FloorRow | None = None, now: int = NOW) -> Bundle:
    return judge(data, signed(data, KEY), TRUST, floor, now)


# ── the laws ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_first_bundle_is_judged_without_a_floor() -> None:
    assert judged(compiled()).version == 7


def test_an_older_version_is_a_rollback() -> None:
    old, new = compiled(version=7), compiled(version=8)
    assert judged(old, floor_of(old)).version == 7
    with pytest.raises(BundleRollbackError, match="older"):
        judged(old, floor_of(new))


def test_the_same_version_with_other_bytes_is_a_rollback() -> None:
    one, other = compiled(version=7), compiled(version=7, name="other")
    assert judged(one, floor_of(one))
    with pytest.raises(BundleRollbackError, match="other bytes"):
        judged(one, floor_of(other))


def test_a_newer_version_passes_the_floor() -> None:
    assert judged(compiled(version=8), floor_of(compiled(version=7))).version == 8


@pytest.mark.parametrize(
    ("now", "degraded"),
    [(EXPIRES_AT - 1, False), (EXPIRES_AT, True), (EXPIRES_AT + GRACE_S - 1, True)],
)
def test_expired_within_the_grace_is_in_force_and_degraded(now: int, degraded: bool) -> None:
    bundle = judged(compiled(), now=now)
    assert (activation.freshness(bundle, now) is not None) is degraded


@pytest.mark.parametrize("now", [EXPIRES_AT + GRACE_S, EXPIRES_AT + 10 * GRACE_S])
def test_expired_beyond_the_grace_is_refused(now: int) -> None:
    with pytest.raises(BundleExpiredError):
        judged(compiled(), now=now)


def test_the_first_law_that_applies_refuses() -> None:
    """Signature, then format, then min_wrapper, then floor, then expiry: what is not signed is not even parsed."""
    late = EXPIRES_AT + GRACE_S
    floor = floor_of(compiled(version=8))
    faults: list[tuple[bytes, type[BundleError], str]] = [
        (b"{", BundleFormatError, "JSON"),
        (compiled(min_wrapper="99.0.0"), BundleFormatError, "needs"),
        (compiled(), BundleRollbackError, "older"),
        (compiled(version=9), BundleExpiredError, "expiry"),
    ]
    for data, kind, text in faults:
        with pytest.raises(BundleSignatureError):
            judge(data, b"[]", TRUST, floor, late)
        with pytest.raises(kind, match=text):
            judge(data, signed(data, KEY), TRUST, floor, late)


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Place:
    """A folder with a signed bundle, and where bundles are installed."""

    source: Path
    installed: Path

    def put(self, data: bytes, signatures: bytes | None = None) -> Bundle:
        self.source.mkdir(exist_ok=True)
        (self.source / "bundle.json").write_bytes(data)
        (self.source / "bundle.sig").write_bytes(signed(data, KEY) if signatures is None else signatures)
        return parse(data)

    def install(self, data: bytes, floor: FloorRow | None = None) -> Path:
        self.put(data)
        bundle = activation.judge_folder(self.source, TRUST, floor, NOW)
        activation.install(self.source, self.installed, bundle, TRUST)
        return self.installed / folder_name(bundle.version, bundle.sha256)

    def load(self, floor: FloorRow | None = None, now: int = NOW, trust: Keys = TRUST) -> activation.Loaded:
        return activation.load_installed(self.installed, trust, floor, now)

    def tree(self) -> dict[str, Any]:
        def content(path: Path) -> Any:
            if path.is_symlink():
                return path.readlink()
            return path.read_bytes() if path.is_file() else None

        return {str(path.relative_to(self.installed)): content(path) for path in sorted(self.installed.rglob("*"))}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "bundle").mkdir()
    return Place(tmp_path / "out", tmp_path / "bundle")


def test_what_was_installed_loads(place: Place) -> None:
    data = compiled()
    folder = place.install(data)
    assert (place.installed / "current").readlink() == Path(folder.name)
    assert folder.name == f"7-{parse(data).sha256[:12]}"
    assert place.load().bundle == place.load(floor_of(data)).bundle == parse(data)
    assert place.load().degraded is None
    assert place.load(now=EXPIRES_AT).degraded


def test_installing_again_changes_nothing(place: Place) -> None:
    place.install(compiled())
    before = place.tree()
    place.install(compiled())
    assert place.tree() == before


def test_nothing_installed_is_refused(place: Place) -> None:
    with pytest.raises(BundleFormatError):
        place.load()
    with pytest.raises(BundleFormatError):
        place.load(floor_of(compiled()))
    with pytest.raises(BundleFormatError):
        activation.load_installed(place.installed / "missing", TRUST, None, NOW)


def test_a_start_takes_the_floor_s_bundle_whatever_current_says(place: Place) -> None:
    old, new = compiled(version=7), compiled(version=8)
    place.install(old)
    place.install(new)
    assert place.load().bundle.version == 8
    assert place.load(floor_of(old)).bundle.version == 7  # a crash before the floor rose
    (place.installed / "current").unlink()
    (place.installed / "current").symlink_to(folder_name(7, parse(old).sha256))
    assert place.load(floor_of(new)).bundle.version == 8
    shutil.rmtree(place.installed / folder_name(8, parse(new).sha256))
    with pytest.raises(BundleFormatError):
        place.load(floor_of(new))


def _replace_by_link(path: Path) -> None:
    moved = path.with_name(f"moved-{path.name}")
    path.rename(moved)
    path.symlink_to(moved)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _grow(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(MAX_BUNDLE_BYTES + 1)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _older(path: Path) -> None:
    data = compiled(version=1)
    path.write_bytes(data)
    path.with_name("bundle.sig").write_bytes(signed(data, KEY))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "bundle missing": lambda folder: (folder / "bundle.json").unlink(),
    "signature missing": lambda folder: (folder / "bundle.sig").unlink(),
    "bundle empty": lambda folder: (folder / "bundle.json").write_bytes(b""),
    "bundle truncated": lambda folder: os.truncate(folder / "bundle.json", 100),
    "bundle flipped": lambda folder: _flip(folder / "bundle.json"),
    "signature truncated": lambda folder: os.truncate(folder / "bundle.sig", 30),
    "signature flipped": lambda folder: _flip(folder / "bundle.sig"),
    "unsigned": lambda folder: (folder / "bundle.sig").write_bytes(b"[]"),
    "bundle is a link": lambda folder: _replace_by_link(folder / "bundle.json"),
    "signature is a link": lambda folder: _replace_by_link(folder / "bundle.sig"),
    "folder is a link": _replace_by_link,
    "bundle is a pipe": lambda folder: _pipe(folder / "bundle.json"),
    "signature is a pipe": lambda folder: _pipe(folder / "bundle.sig"),
    "bundle is a folder": lambda folder: _folder(folder / "bundle.json"),
    "bundle is huge": lambda folder: _grow(folder / "bundle.json"),
    "signature is huge": lambda folder: _grow(folder / "bundle.sig"),
    "an older, signed bundle in its place": lambda folder: _older(folder / "bundle.json"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
@pytest.mark.parametrize("with_floor", [True, False], ids=["floor", "no floor"])
def test_a_damaged_installation_does_not_load(place: Place, damage: Callable[[Path], object], with_floor: bool) -> None:
    data = compiled()
    folder = place.install(data)
    floor = floor_of(data) if with_floor else None
    assert place.load(floor).bundle == parse(data)
    damage(folder)
    with pytest.raises(BundleError):
        place.load(floor)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        ("bundle is a pipe", "not a plain file"),
        ("signature is a pipe", "not a plain file"),
        ("bundle is huge", "bundle.json is too big"),
        ("signature is huge", "bundle.sig is too big"),
        ("bundle is a link", "can't be read"),
        ("folder is a link", "can't be opened"),
    ],
)
def test_what_is_no_plain_bounded_file_is_not_even_read(place: Place, damage: str, why: str) -> None:
    folder = place.install(compiled())
    DAMAGE[damage](folder)
    with pytest.raises(BundleFormatError, match=why):
        place.load()


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_activating_again_repairs_a_damaged_installation(place: Place, damage: Callable[[Path], object]) -> None:
    data = compiled()
    damage(place.install(data))
    place.install(data, floor_of(data))
    assert place.load(floor_of(data)).bundle == parse(data)


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_source_is_not_installed(place: Place, damage: Callable[[Path], object], tmp_path: Path) -> None:
    good = compiled()
    place.install(good)
    before = place.tree()
    place.put(compiled(version=8))
    damage(place.source)
    if damage is DAMAGE["folder is a link"]:
        assert activation.judge_folder(place.source, TRUST, floor_of(good), NOW).version == 8  # an admin's own path
        return
    with pytest.raises(BundleError):
        activation.judge_folder(place.source, TRUST, floor_of(good), NOW)
    assert place.tree() == before


@pytest.mark.parametrize(
    "target",
    ["/etc", "..", ".", "../out", "incoming", "7-0123456789ab/../x", "0-0123456789ab", "7-0123456789AB", "x" * 200],
)
def test_current_names_one_plain_folder_beside_it(place: Place, target: str) -> None:
    place.install(compiled())
    current = place.installed / "current"
    current.unlink()
    current.symlink_to(target)
    with pytest.raises(BundleFormatError, match="no installed bundle"):
        place.load()
    assert place.load(floor_of(compiled())).bundle  # the floor does not need it


def test_current_that_is_no_link_is_refused(place: Place) -> None:
    folder = place.install(compiled())
    current = place.installed / "current"
    current.unlink()
    shutil.copytree(folder, current)
    with pytest.raises(BundleFormatError):
        place.load()


def test_a_bundle_in_a_folder_of_another_name_is_refused(place: Place) -> None:
    folder = place.install(compiled())
    folder.rename(place.installed / "8-0123456789ab")
    (place.installed / "current").unlink()
    (place.installed / "current").symlink_to("8-0123456789ab")
    with pytest.raises(BundleFormatError, match="another version or digest"):
        place.load()


def test_a_key_taken_out_of_trust_takes_its_bundle_with_it(place: Place) -> None:
    place.install(compiled())
    with pytest.raises(BundleSignatureError):
        place.load(trust=Keys((new_key("k2")[1],)))
    assert place.load(trust=Keys((new_key("k2")[1], KEY[1])))


def test_what_is_installed_is_what_was_judged(place: Place) -> None:
    place.put(compiled())
    bundle = activation.judge_folder(place.source, TRUST, None, NOW)
    place.put(compiled(version=8))  # swapped between judging and installing
    with pytest.raises(BundleFormatError, match="changed"):
        activation.install(place.source, place.installed, bundle, TRUST)
    place.put(compiled(), signatures=signed(compiled(), new_key()))
    with pytest.raises(BundleSignatureError):
        activation.install(place.source, place.installed, bundle, TRUST)
    assert place.tree() == {}
    place.put(compiled())
    activation.install(place.source, place.installed, bundle, TRUST)
    assert place.load().bundle == bundle


@pytest.mark.parametrize("step", ["mkdir", "fsync", "rename", "symlink", "replace"])
def test_a_failing_disk_leaves_the_installed_bundle(place: Place, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = compiled(version=7), compiled(version=8)
    place.install(old)
    place.put(new)
    bundle = activation.judge_folder(place.source, TRUST, floor_of(old), NOW)

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, step, fail)
        with pytest.raises(BundleError, match="can't be written"):
            activation.install(place.source, place.installed, bundle, TRUST)
    assert place.load(floor_of(old)).bundle == place.load().bundle == parse(old)
    activation.install(place.source, place.installed, bundle, TRUST)
    assert place.load(floor_of(new)).bundle == place.load().bundle == parse(new)


def test_a_new_installation_is_laid_down_ready_to_start(place: Place) -> None:
    data = compiled()
    folder = activation.lay_down(data, signed(data, KEY), place.installed)
    assert folder == place.installed / folder_name(7, parse(data).sha256)
    assert place.load().bundle == parse(data)
    with pytest.raises(BundleFormatError):
        activation.lay_down(b"{}", b"[]", place.installed)
