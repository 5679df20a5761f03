"""The filter, run by a small interpreter of classic BPF; the kernel's own answers are in tests/attacks."""

from __future__ import annotations

import errno
import struct

import pytest

from safety_wrapper.runner import seccomp

ALLOW = 0x7FFF0000
X86, ARM, I386 = 0xC000003E, 0xC00000B7, 0x40000003
NUMBERS = {"x86_64": (X86, 41, 16, 250, 0), "aarch64": (ARM, 198, 29, 219, 63)}  # socket, ioctl, keyctl, read


def answer(machine: str, arch: int, number: int, *arguments: int) -> int:
    """What the filter says to one system call."""
    program = seccomp.program(machine)
    assert program is not None
    data = struct.pack("=iIQ6Q", number, arch, 0, *arguments, *[0] * (6 - len(arguments)))
    steps = list(struct.iter_unpack("=HBBI", program))
    value, at = 0, 0
    while True:
        code, if_true, if_false, k = steps[at]
        at += 1
        match code:
            case 0x20:
                value = struct.unpack_from("=I", data, k)[0]
            case 0x15:
                at += if_true if value == k else if_false
            case 0x35:
                at += if_true if value >= k else if_false
            case 0x06:
                return k
            case _:
                raise AssertionError(code)


def refused(number: int) -> int:
    return 0x00050000 | number


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_ordinary_calls_pass(machine: str) -> None:
    arch, socket, ioctl, _, read = NUMBERS[machine]
    assert answer(machine, arch, read) == ALLOW
    assert [answer(machine, arch, socket, family) for family in (1, 2, 10, 16)] == [ALLOW] * 4
    assert answer(machine, arch, ioctl, 0, 0x541B) == ALLOW


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_what_reaches_out_of_namespaces_is_refused(machine: str) -> None:
    arch, socket, ioctl, keyctl, _ = NUMBERS[machine]
    eperm = refused(errno.EPERM)
    assert {answer(machine, arch, socket, f) for f in range(3, 46) if f not in {10, 16}} == {
        refused(errno.EAFNOSUPPORT)
    }
    assert [answer(machine, arch, ioctl, 0, request) for request in (0x5412, 0x541C)] == [eperm, eperm]
    assert answer(machine, arch, ioctl, 0, 0x5412 | 1 << 32) == eperm  # the kernel looks at the low half
    assert [answer(machine, arch, number) for number in (keyctl, 425, 442)] == [eperm] * 3


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_another_architecture_is_refused_whole(machine: str) -> None:
    assert answer(machine, I386, 1) == refused(errno.EPERM)
    assert answer(machine, NUMBERS[machine][0], 0x40000000) == refused(errno.EPERM)


def test_an_unknown_machine_has_no_filter() -> None:
    assert seccomp.program("vax") is None
    assert len(seccomp.program("x86_64") or b"") % 8 == 0
