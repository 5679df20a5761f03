"""What goes over runner.sock comes back equal; what is not exactly a request is refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safety_wrapper.canonical import parse_strict
from safety_wrapper.errors import WireError
from safety_wrapper.frames import MEMFD_ABOVE, encode, to_memfd
from safety_wrapper.runner import protocol
from safety_wrapper.runner.protocol import Blobs, FileOutcome, FileRequest, Limits, RunOutcome, RunRequest

QUICK = settings(max_examples=60, database=None, deadline=None)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
PLAIN = TEXT.map(lambda text: text.replace("\0", ""))
RUN = RunRequest("job_1", ("/bin/true", "a b"), cwd="/work", env=(("A", "1"),))


@pytest.fixture
def blobs() -> Iterator[Blobs]:
    found = Blobs()
    yield found
    found.close()


def over_the_wire(body: dict[str, Any]) -> dict[str, Any]:
    """A body as the other side reads it; descriptors stay beside it."""
    descriptors = body.pop("_descriptors", None)
    read = parse_strict(encode(body)[4:])
    return {**read, "_descriptors": descriptors} if descriptors else read


@given(st.lists(PLAIN, max_size=5), st.dictionaries(st.from_regex(r"[A-KM-Z][A-Z]{2,6}_X", fullmatch=True), PLAIN))
@QUICK
def test_run_requests_come_back_equal(words: list[str], env: dict[str, str]) -> None:
    wanted = RunRequest("job_1", ("prog", *words), env=tuple(env.items()), stdin=b"\0\xff", limits=Limits(wall_s=3))
    blobs = Blobs()
    try:
        body = over_the_wire(protocol.run_body(wanted, blobs))
        assert protocol.parse_run(body, blobs.descriptors) == wanted
    finally:
        blobs.close()


@given(TEXT, TEXT, TEXT, st.booleans())
@QUICK
def test_file_requests_come_back_equal(path: str, old: str, new: str, every: bool) -> None:
    wanted = FileRequest("job_1", "edit", path, old=old, new=new, all=every)
    blobs = Blobs()
    try:
        assert protocol.parse_file(over_the_wire(protocol.file_body(wanted, blobs)), blobs.descriptors) == wanted
    finally:
        blobs.close()


@pytest.mark.parametrize("size", [10, MEMFD_ABOVE, MEMFD_ABOVE + 1, 3_000_000])
def test_long_arguments_travel_beside_the_frame(blobs: Blobs, size: int) -> None:
    wanted = RunRequest("job_1", ("/bin/bash", "-c", "x" * size))
    body = protocol.run_body(wanted, blobs)
    assert len(encode(body)) < 2 * MEMFD_ABOVE
    assert bool(blobs.descriptors) == (size + 13 > MEMFD_ABOVE)
    assert protocol.parse_run(over_the_wire(body), blobs.descriptors) == wanted


@pytest.mark.parametrize("text", ["", "short", "é" * 40_000, "x" * 200_000])
def test_outcomes_come_back_equal(text: str) -> None:
    outcome = RunOutcome(0, None, "exit", text, "err", len(text), 3, 5, 6, lossy=False)
    assert protocol.parse_run_answer(over_the_wire(protocol.answer(outcome, "stdout", "stderr"))) == outcome
    done = FileOutcome(ok=True, text=text, error="", truncated_bytes=7, lossy=True)
    assert protocol.parse_file_answer(over_the_wire(protocol.answer(done, "text"))) == done


def test_the_good_request_is_taken() -> None:
    assert protocol.parse_run(protocol.run_body(RUN, Blobs()), []) == RUN


@pytest.mark.parametrize(
    "change",
    [
        {"job": "../x"}, {"job": ""}, {"job": 1}, {"job": "j" * 65}, {"argv": []}, {"argv": [""]}, {"argv": "ls"},
        {"argv": ["a\0b"]}, {"argv": ["a", 1]}, {"argv": ["x"] * 4097}, {"argv": {"fd": 0, "bytes": 1}},
        {"argv": ["\ud800"]}, {"cwd": "work"}, {"cwd": "/a\0b"}, {"cwd": 5}, {"profile": "Work"}, {"profile": "a/b"},
        {"env": []}, {"env": {"A": 1}}, {"env": {"A=B": "x"}}, {"env": {"": "x"}}, {"env": {"A": "x\0"}},
        {"env": {"LD_PRELOAD": "/work/x.so"}}, {"env": {"BASH_ENV": "/work/x"}}, {"env": {"BASH_FUNC_ls": "() {"}},
        {"env": {f"A{i}": "" for i in range(65)}}, {"limits": []}, {"limits": {"wall_s": 0}},
        {"limits": {"wall_s": True}}, {"limits": {"wall_s": 1.5}}, {"limits": {"other": 1}}, {"stdin": "text"},
        {"stdin": {"fd": 0, "bytes": 1}}, {"tickets": []}, {"program": "x"},
    ],
)  # fmt: skip
def test_what_is_no_run_request_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(WireError) as caught:
        protocol.parse_run({**protocol.run_body(RUN, Blobs()), **change}, [])
    assert caught.value.code == "bad_request"


@pytest.mark.parametrize("missing", ["job", "argv", "profile"])
def test_a_missing_key_is_refused(missing: str) -> None:
    body = protocol.run_body(RUN, Blobs())
    del body[missing]
    with pytest.raises(WireError):
        protocol.parse_run(body, [])


@pytest.mark.parametrize(
    "body",
    [
        {"op": "delete"}, {"op": "write"}, {"op": "edit", "old": "x"}, {"path": 5}, {"path": "\ud800"},
        {"offset": -1}, {"offset": True}, {"limit": "5"}, {"all": 1}, {"content": 5}, {"mode": "0777"},
    ],
)  # fmt: skip
def test_what_is_no_file_request_is_refused(body: dict[str, Any]) -> None:
    good = {"job": "job_1", "op": "read", "path": "a", "profile": "work"}
    assert protocol.parse_file(dict(good), []).path == "a"
    with pytest.raises(WireError):
        protocol.parse_file({**good, **body}, [])


@pytest.mark.parametrize("argument", ["a\0b", "\ud800"])
def test_an_argument_that_no_program_can_take_is_not_sent(argument: str) -> None:
    with pytest.raises(WireError):
        protocol.run_body(replace(RUN, argv=("prog", argument)), Blobs())


@pytest.mark.parametrize(
    "reference", [{"fd": 1, "bytes": 3}, {"fd": 0, "bytes": 4}, {"fd": 0}, {"fd": True, "bytes": 3}]
)
def test_a_reference_must_be_exact(reference: dict[str, int]) -> None:
    fd = to_memfd(b"abc")
    try:
        assert protocol.take_text({"fd": 0, "bytes": 3}, [fd]) == "abc"
        with pytest.raises(WireError):
            protocol.take_text(reference, [fd])
    finally:
        os.close(fd)


def test_a_text_by_reference_must_be_utf8() -> None:
    fd = to_memfd(b"\xff")
    try:
        assert protocol.take_data({"fd": 0, "bytes": 1}, [fd]) == b"\xff"
        with pytest.raises(WireError):
            protocol.take_text({"fd": 0, "bytes": 1}, [fd])
    finally:
        os.close(fd)


@pytest.mark.parametrize("change", [{"ended": "other"}, {"lossy": 1}, {"exit": "0"}, {"wall_ms": None}, {"stdout": 5}])
def test_an_odd_answer_is_refused(change: dict[str, Any]) -> None:
    body = protocol.answer(RunOutcome(0, None, "exit", "", "", 0, 0, 0, 0, lossy=False))
    assert protocol.parse_run_answer(dict(body)).ended == "exit"
    with pytest.raises(WireError):
        protocol.parse_run_answer({**body, **change})
    del body["exit"]
    with pytest.raises(WireError):
        protocol.parse_run_answer(body)
