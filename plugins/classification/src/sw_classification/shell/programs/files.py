"""Programs that change files: make, copy, move, delete, pack, change rights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sw_classification.shell.programs.arguments import Program, read
from sw_classification.symbolic import UNKNOWN

if TYPE_CHECKING:
    from sw_classification.shell.walk import Walker


def _rm(walker: Walker, argv: list[str], piped: bool) -> None:
    arguments = read(argv)
    flags = ["recursive"] if arguments.has("-r", "-R", "--recursive") else []
    if arguments.has("--no-preserve-root"):
        flags.append("no_preserve_root")
    for path in arguments.operands or (UNKNOWN,):
        walker.path("delete", path, argv[0], *flags, argv=argv)


def _shred(walker: Walker, argv: list[str], piped: bool) -> None:
    for path in read(argv, ("-n", "-s", "--iterations", "--size")).operands:
        walker.path("delete", path, argv[0], "irreversible", argv=argv)


def _truncate(walker: Walker, argv: list[str], piped: bool) -> None:
    for path in read(argv, ("-s", "-r", "--size", "--reference")).operands:
        walker.path("write", path, argv[0], "truncate")


def _make(walker: Walker, argv: list[str], piped: bool) -> None:
    for path in read(argv, ("-m", "--mode", "-d", "-t", "-r", "--date", "--reference", "-p")).operands:
        walker.path("write", path, argv[0])


def _mkdir(walker: Walker, argv: list[str], piped: bool) -> None:
    for path in read(argv, ("-m", "--mode")).operands:
        walker.path("write", path, argv[0])


def _copy(walker: Walker, argv: list[str], piped: bool) -> None:
    arguments = read(argv, ("-t", "--target-directory", "-S", "--suffix", "-m", "-o", "-g"))
    flags = ("recursive",) if arguments.has("-r", "-R", "-a", "--recursive", "--archive") else ()
    target = arguments.value("-t", "--target-directory")
    sources = arguments.operands if target is not None else arguments.operands[:-1]
    target = target if target is not None else (arguments.operands[-1] if arguments.operands else UNKNOWN)
    for path in sources:
        if argv[0] == "mv":
            walker.path("write", path, argv[0], "moved")
        walker.path("read", path, argv[0], *flags)
    walker.path("write", target, argv[0], "overwrite", *flags)


def _rights(walker: Walker, argv: list[str], piped: bool) -> None:
    arguments = read(argv, ("--reference", "--from"))
    flags = ["permissions"]
    if arguments.has("-R", "--recursive"):
        flags.append("recursive")
    mode = arguments.operands[0] if arguments.operands else ""
    if argv[0] == "chmod" and (
        mode.endswith(("777", "666"))
        or "o+w" in mode
        or "a+w" in mode
        or (mode[:1] in "4267" and len(mode) == 4)
        or "+s" in mode
    ):
        flags.append("wide")
    for path in arguments.operands[1:]:
        walker.path("write", path, argv[0], *flags)


def _dd(walker: Walker, argv: list[str], piped: bool) -> None:
    for word in argv[1:]:
        name, _, value = word.partition("=")
        if name == "if":
            walker.path("read", value, "dd")
        elif name == "of":
            walker.path("write", value, "dd", "overwrite", "raw")


def _tar(walker: Walker, argv: list[str], piped: bool) -> None:
    words = list(argv)
    if len(words) > 1 and not words[1].startswith("-"):
        words[1] = "-" + words[1]
    taking = ("-f", "--file", "-C", "--directory", "--exclude", "-X", "-T", "--strip-components", "-I", "--use-compress-program",
              "--to-command", "--checkpoint-action", "--transform", "--rsh-command")  # fmt: skip
    arguments = read(words, taking)
    if arguments.has(
        "-I", "--use-compress-program", "--to-command", "--checkpoint-action", "--rsh-command", "-F", "--info-script"
    ):
        walker.opaque("tar runs a program of its own")
    archive = arguments.value("-f", "--file")
    folder = arguments.value("-C", "--directory") or "."
    if arguments.has("-t", "--list"):
        if archive:
            walker.path("read", archive, "tar")
        return None
    if arguments.has("-x", "--extract", "--get"):
        if archive:
            walker.path("read", archive, "tar")
        return walker.path("write", folder, "tar", "recursive", "unpack")
    if archive and archive != "-":
        walker.path("write", archive, "tar", "overwrite")
    for path in arguments.operands:
        walker.path("read", path, "tar", "recursive")
    if arguments.has("--remove-files"):
        for path in arguments.operands:
            walker.path("delete", path, "tar", "recursive")
    return None


def _unzip(walker: Walker, argv: list[str], piped: bool) -> None:
    arguments = read(argv, ("-d", "-x", "-P"))
    for path in arguments.operands[:1]:
        walker.path("read", path, argv[0])
    if not arguments.has("-l", "-t", "-v", "-Z", "-p"):
        walker.path("write", arguments.value("-d") or ".", argv[0], "recursive", "unpack")


def _zip(walker: Walker, argv: list[str], piped: bool) -> None:
    arguments = read(argv, ("-x", "-i", "-P", "-n", "-t"))
    for path in arguments.operands[:1]:
        walker.path("write", path, argv[0])
    for path in arguments.operands[1:]:
        walker.path("read", path, argv[0], "recursive")
        if arguments.has("-m", "--move"):
            walker.path("delete", path, argv[0], "recursive")
    if arguments.has("-T", "--unzip-command", "-TT"):
        walker.opaque("zip runs a program of its own")


def _gzip(walker: Walker, argv: list[str], piped: bool) -> None:
    arguments = read(argv, ("-S", "--suffix", "-T"))
    reads = arguments.has("-l", "-t", "-c", "--list", "--test", "--stdout", "--to-stdout")
    for path in arguments.operands:
        walker.path("read" if reads else "write", path, argv[0])


def _ln(walker: Walker, argv: list[str], piped: bool) -> None:
    arguments = read(argv, ("-t", "-S"))
    if len(arguments.operands) == 1:
        return walker.path("write", ".", "ln")
    for path in arguments.operands[:-1]:
        walker.path("read", path, "ln", "metadata")
    if arguments.operands:
        walker.path("write", arguments.operands[-1], "ln", *(("overwrite",) if arguments.has("-f", "--force") else ()))
    return None


def _device(walker: Walker, argv: list[str], piped: bool) -> None:
    for path in read(argv, ("-L", "-t", "-b", "-o")).operands or (UNKNOWN,):
        walker.path("delete", path, argv[0], "irreversible", "raw")


def _split(walker: Walker, argv: list[str], piped: bool) -> None:
    arguments = read(argv, ("-l", "-b", "-n", "-a", "--filter", "-C"))
    if arguments.has("--filter"):
        walker.opaque("split runs a program of its own")
    for path in arguments.operands[:1]:
        if path != "-":
            walker.path("read", path, "split")
    walker.path("write", ".", "split")


PROGRAMS: Final[dict[str, Program]] = {
    "rm": _rm, "rmdir": _rm, "unlink": _rm, "shred": _shred, "wipe": _shred, "srm": _shred, "truncate": _truncate,
    "touch": _make, "mkdir": _mkdir, "mkfifo": _make, "mktemp": _mkdir,
    "cp": _copy, "mv": _copy, "install": _copy,
    "chmod": _rights, "chown": _rights, "chgrp": _rights, "chattr": _rights, "setfacl": _rights,
    "dd": _dd, "tar": _tar, "unzip": _unzip, "zip": _zip,
    "gzip": _gzip, "gunzip": _gzip, "bzip2": _gzip, "bunzip2": _gzip, "xz": _gzip, "unxz": _gzip, "zstd": _gzip,
    "ln": _ln, "split": _split,
    **dict.fromkeys(["mkfs", "mkfs.ext4", "mkfs.xfs", "mkfs.btrfs", "mkfs.vfat", "mkswap", "wipefs", "fdisk", "sfdisk", "parted", "blkdiscard"], _device),
}  # fmt: skip
