"""Who signed the exact bytes. Each refusal has its twin that is trusted."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from safety_wrapper.canonical import canonical_json
from safety_wrapper.config import Trust
from safety_wrapper.errors import BundleSignatureError, ConfigError
from safety_wrapper.policy import signing
from safety_wrapper.policy.signing import Key, Keys, verify
from unit.policy.samples import new_key, signed

DATA = b'{"some":"bytes"}'


def test_a_signed_bundle_is_trusted() -> None:
    key = new_key()
    assert verify(DATA, signed(DATA, key), Keys((key[1],))) == ("k1",)


def test_the_configuration_s_trust_section_is_a_trust() -> None:
    key = new_key()
    trust = Trust.model_validate({"bundle_keys": [{"kid": "k1", "ed25519": key[1].ed25519}], "threshold": 1})
    assert verify(DATA, signed(DATA, key), trust) == ("k1",)


def test_the_signature_is_ed25519_over_domain_and_bytes() -> None:
    """The contract with other implementations, spelled out."""
    private, public = new_key()
    private.public_key().verify(
        signing._decode(signing.sign(DATA, "k1", private)["sig"]) or b"", b"sw/bundle/v1\x00" + DATA
    )
    assert signing._decode(public.ed25519) == private.public_key().public_bytes_raw()


@settings(database=None, max_examples=60, deadline=None)
@given(st.integers(0, len(DATA) - 1), st.integers(0, 7))
def test_a_flipped_bit_is_refused(index: int, bit: int) -> None:
    key = new_key()
    signatures = signed(DATA, key)
    altered = bytearray(DATA)
    altered[index] ^= 1 << bit
    with pytest.raises(BundleSignatureError):
        verify(bytes(altered), signatures, Keys((key[1],)))
    assert verify(DATA, signatures, Keys((key[1],)))


def test_a_signature_over_the_bare_bytes_is_refused() -> None:
    private, public = new_key()
    bare = {"kid": "k1", "sig": signing._encode(private.sign(DATA))}
    with pytest.raises(BundleSignatureError):
        verify(DATA, signing.signatures_json([bare]), Keys((public,)))


def test_another_key_under_the_trusted_id_is_refused() -> None:
    trusted, stranger = new_key(), new_key()
    with pytest.raises(BundleSignatureError):
        verify(DATA, signed(DATA, stranger), Keys((trusted[1],)))


def test_a_revoked_key_counts_for_nothing() -> None:
    revoked, kept = new_key("old"), new_key("new")
    with pytest.raises(BundleSignatureError):
        verify(DATA, signed(DATA, revoked), Keys((kept[1],)))
    assert verify(DATA, signed(DATA, revoked, kept), Keys((kept[1],))) == ("new",)


def test_nobody_trusted_is_a_refusal() -> None:
    with pytest.raises(BundleSignatureError):
        verify(DATA, signed(DATA, new_key()), Keys(()))


@pytest.mark.parametrize("threshold", [0, -1])
def test_a_threshold_below_one_admits_nothing(threshold: int) -> None:
    key = new_key()
    with pytest.raises(BundleSignatureError):
        verify(DATA, signed(DATA, key), Keys((key[1],), threshold))
    with pytest.raises(BundleSignatureError):
        verify(DATA, b"[]", Keys((), threshold))


def test_the_threshold_counts_distinct_keys() -> None:
    one, two, three = new_key("k1"), new_key("k2"), new_key("k3")
    trust = Keys((one[1], two[1], three[1]), threshold=2)
    with pytest.raises(BundleSignatureError, match="1 of the 2"):
        verify(DATA, signed(DATA, one), trust)
    assert verify(DATA, signed(DATA, one, three), trust) == ("k1", "k3")


def test_one_key_that_signs_twice_counts_once() -> None:
    one, two = new_key("k1"), new_key("k2")
    entry = signing.sign(DATA, "k1", one[0])
    twice = canonical_json([entry, entry])
    with pytest.raises(BundleSignatureError):
        verify(DATA, twice, Keys((one[1], two[1]), threshold=2))
    assert verify(DATA, twice, Keys((one[1],)))


def test_one_key_that_is_trusted_under_two_ids_counts_once() -> None:
    private, public = new_key("k1")
    again = Key("k2", public.ed25519)
    both = signed(DATA, (private, public), (private, again))
    with pytest.raises(BundleSignatureError):
        verify(DATA, both, Keys((public, again), threshold=2))
    assert verify(DATA, both, Keys((public, again))) == ("k1",)


def test_a_broken_signature_beside_a_good_one_counts_for_nothing() -> None:
    one, two = new_key("k1"), new_key("k2")
    forged = {"kid": "k2", "sig": signing.sign(DATA, "k1", one[0])["sig"]}
    both = signing.signatures_json([signing.sign(DATA, "k1", one[0]), forged])
    assert verify(DATA, both, Keys((one[1], two[1]))) == ("k1",)
    with pytest.raises(BundleSignatureError):
        verify(DATA, both, Keys((one[1], two[1]), threshold=2))


_SIG = "A" * 86


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        "[[]]",
        '["x"]',
        "[{}]",
        '[{"kid":"k1"}]',
        f'[{{"kid":"k1","sig":"{_SIG}","x":1}}]',
        f'[{{"kid":"k1","sig":"{_SIG[1:]}"}}]',
        f'[{{"kid":"k1","sig":"{_SIG}="}}]',
        f'[{{"kid":"K1","sig":"{_SIG}"}}]',
        f'[{{"kid":1,"sig":"{_SIG}"}}]',
        '[{"kid":"k1","sig":null}]',
        f'[{{"kid":"k1","kid":"k1","sig":"{_SIG}"}}]',
        "[" * 100 + "]" * 100,
        "[" + ",".join([f'{{"kid":"k1","sig":"{_SIG}"}}'] * 33) + "]",
        " " * 20_000,
    ],
)
def test_what_is_no_list_of_signatures_is_refused(text: str) -> None:
    key = new_key()
    with pytest.raises(BundleSignatureError):
        verify(DATA, text.encode(), Keys((key[1],)))


@settings(database=None, max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_verify_raises_nothing_else(signatures: bytes) -> None:
    with pytest.raises(BundleSignatureError):
        verify(DATA, signatures, Keys((Key("k1", "A" * 43),)))


@pytest.mark.parametrize("text", ["", "A" * 42, "A" * 44, "A" * 42 + "B", "!" * 43, "é" * 43])
def test_a_trusted_key_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BundleSignatureError):
        verify(DATA, signed(DATA, new_key()), Keys((Key("k1", text),)))


def test_only_one_text_stands_for_a_signature() -> None:
    """The last digit of base64 has spare bits; a second spelling of the same signature is none."""
    private, public = new_key()
    entry = signing.sign(DATA, "k1", private)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = alphabet[alphabet.index(entry["sig"][-1]) + 1]
    with pytest.raises(BundleSignatureError):
        verify(DATA, signing.signatures_json([{**entry, "sig": entry["sig"][:-1] + other}]), Keys((public,)))


# ── key files ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_generated_key_is_private_and_loads(tmp_path: Path) -> None:
    path = tmp_path / "k.pem"
    before = os.umask(0)
    try:
        made = signing.generate_key(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    loaded = signing.load_private(path)
    assert signing.public_text(loaded) == signing.public_text(made)
    assert signing.key_id(loaded) == signing.key_id(made)
    assert verify(DATA, signed(DATA, (loaded, Key("x", ""))), Keys((Key("x", signing.public_text(made)),)))


def test_a_key_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "k.pem"
    signing.generate_key(path)
    before = path.read_bytes()
    with pytest.raises(ConfigError):
        signing.generate_key(path)
    assert path.read_bytes() == before


def test_a_key_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "k.pem").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError):
        signing.generate_key(tmp_path / "k.pem")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o620])
def test_a_key_that_others_reach_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "k.pem"
    signing.generate_key(path)
    assert signing.load_private(path)
    path.chmod(mode)
    with pytest.raises(ConfigError, match="0600"):
        signing.load_private(path)


def test_what_is_no_key_file_is_refused(tmp_path: Path) -> None:
    real = tmp_path / "real.pem"
    signing.generate_key(real)
    (tmp_path / "link.pem").symlink_to(real)
    os.mkfifo(tmp_path / "pipe.pem", 0o600)
    (tmp_path / "folder.pem").mkdir(0o700)
    for name, content in {
        "empty.pem": b"",
        "text.pem": b"hello",
        "curve.pem": generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        "locked.pem": Ed25519PrivateKey.generate().private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")
        ),
    }.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
    names = ("link", "pipe", "folder", "missing", "empty", "text", "curve", "locked")
    for name in names:
        with pytest.raises(ConfigError):
            signing.load_private(tmp_path / f"{name}.pem")


@pytest.mark.parametrize("kid", ["", "Upper", "a b", "-x", "x" * 64])
def test_a_key_id_has_a_form(kid: str) -> None:
    with pytest.raises(ConfigError):
        signing.sign(DATA, kid, Ed25519PrivateKey.generate())
    assert signing.sign(DATA, "release-2026.1", Ed25519PrivateKey.generate())


def test_signing_again_replaces_by_id_and_sorts() -> None:
    one, two = new_key("b"), new_key("a")
    first = signing.sign(b"old", "b", one[0])
    entries = [first, signing.sign(DATA, "a", two[0]), signing.sign(DATA, "b", one[0])]
    kept = signing.read_signatures(signing.signatures_json(entries))
    assert [entry["kid"] for entry in kept] == ["a", "b"]
    assert first not in kept
