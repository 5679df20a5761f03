"""A system call filter for sandboxes, as the classic BPF program that bubblewrap loads.

It closes what namespaces do not: AF_VSOCK and the other socket families that no network namespace holds, the kernel's
key rings (a session ring is inherited from whoever started the runner), terminal injection, and the calls through
which most kernel faults were reached (io_uring, bpf, userfaultfd, perf). Refused calls give EPERM, refused socket
families EAFNOSUPPORT. Programs of another architecture (32 bit on 64) get EPERM for everything.
"""

from __future__ import annotations

import errno
import platform
import struct
from typing import Final

_LOAD, _EQUAL, _GREATER_EQUAL, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW: Final = 0x7FFF0000
_ERRNO: Final = 0x00050000
_NUMBER, _ARCH, _ARGUMENT_0, _ARGUMENT_1 = 0, 4, 16, 24  # offsets in struct seccomp_data (low halves, little endian)
_X32: Final = 0x40000000

#: AF_UNIX, AF_INET, AF_INET6, AF_NETLINK: all of them live inside the network or mount namespace.
FAMILIES: Final = (1, 2, 10, 16)
#: TIOCSTI and TIOCLINUX type into a terminal.
REQUESTS: Final = (0x5412, 0x541C)

_COMMON: Final = {
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428, "move_mount": 429,
    "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "mount_setattr": 442,
}  # fmt: skip
_X86_64: Final = _COMMON | {
    "pivot_root": 155, "acct": 163, "mount": 165, "umount2": 166, "swapon": 167, "quotactl": 179,
    "lookup_dcookie": 212, "kexec_load": 246, "add_key": 248, "request_key": 249, "keyctl": 250,
    "perf_event_open": 298, "open_by_handle_at": 304, "kexec_file_load": 320, "bpf": 321, "userfaultfd": 323,
}  # fmt: skip
_AARCH64: Final = _COMMON | {
    "lookup_dcookie": 18, "umount2": 39, "mount": 40, "pivot_root": 41, "quotactl": 60, "acct": 89,
    "kexec_load": 104, "add_key": 217, "request_key": 218, "keyctl": 219, "swapon": 224, "perf_event_open": 241,
    "open_by_handle_at": 265, "bpf": 280, "userfaultfd": 282, "kexec_file_load": 294,
}  # fmt: skip
#: machine -> (audit architecture, number of socket, number of ioctl, refused calls)
_MACHINES: Final = {
    "x86_64": (0xC000003E, 41, 16, _X86_64),
    "aarch64": (0xC00000B7, 198, 29, _AARCH64),
}


def program(machine: str | None = None) -> bytes | None:
    """The filter for ``machine`` (default: this one), or None where the numbers are not known."""
    known = _MACHINES.get(machine or platform.machine())
    if known is None:
        return None
    architecture, socket, ioctl, refused = known
    eperm = _ERRNO | errno.EPERM
    steps = [
        _step(_LOAD, _ARCH),
        _step(_EQUAL, architecture, 1, 0),
        _step(_RETURN, eperm),
        _step(_LOAD, _NUMBER),
        _step(_GREATER_EQUAL, _X32, 0, 1),
        _step(_RETURN, eperm),
        *_argument(socket, _ARGUMENT_0, FAMILIES, listed=_ALLOW, other=_ERRNO | errno.EAFNOSUPPORT),
        *_argument(ioctl, _ARGUMENT_1, REQUESTS, listed=eperm, other=_ALLOW),
    ]
    for number in sorted(refused.values()):
        steps += [_step(_EQUAL, number, 0, 1), _step(_RETURN, eperm)]
    return b"".join([*steps, _step(_RETURN, _ALLOW)])


def _argument(number: int, offset: int, values: tuple[int, ...], *, listed: int, other: int) -> list[bytes]:
    """For call ``number``: ``listed`` when the argument at ``offset`` is one of ``values``, else ``other``."""
    tests = [_step(_EQUAL, value, len(values) - i, 0) for i, value in enumerate(values)]
    body = [_step(_LOAD, offset), *tests, _step(_RETURN, other), _step(_RETURN, listed)]
    return [_step(_EQUAL, number, 0, len(body)), *body]


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
