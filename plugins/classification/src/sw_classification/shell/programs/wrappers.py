"""Programs that run another one: unwrapped, so that what counts is what runs in the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sw_classification.facts import Fact
from sw_classification.shell.programs.arguments import Program, read
from sw_classification.symbolic import UNKNOWN, is_literal

if TYPE_CHECKING:
    from sw_classification.shell.walk import Walker


def _prefix(*with_value: str, operands: int = 0, assignments: bool = False) -> Program:
    """``nice -n 5 CMD``: options, ``operands`` words of its own, perhaps assignments, then the command."""
    takes = frozenset(with_value)

    def program(walker: Walker, argv: list[str], piped: bool) -> None:
        words = argv[1:]
        while words and words[0].startswith("-") and words[0] != "-":
            option = words.pop(0)
            if option == "--":
                break
            if not is_literal(option) or option.startswith(("-S", "--split-string")):
                return walker.opaque("what the command runs is not known")
            if option in takes and words:
                words.pop(0)
        while assignments and words and "=" in words[0].split("/")[0]:
            name = words.pop(0).partition("=")[0]
            if name in {"LD_PRELOAD", "LD_LIBRARY_PATH", "PATH", "BASH_ENV", "PYTHONPATH", "NODE_OPTIONS"}:
                walker.opaque("a variable makes the program load something else")
        words = words[operands:]
        return _run(walker, words, piped=piped)

    return program


def _run(walker: Walker, words: list[str], *, piped: bool) -> None:
    if not words:
        return None
    if not is_literal(words[0]):
        return walker.opaque("which program runs is not known")
    walker.command(words, piped=piped)
    return None


def _env(walker: Walker, argv: list[str], piped: bool) -> None:
    if len(argv) == 1:
        walker.add(Fact("read", "process", "environment", program="env", flags=frozenset({"environment"})))
        return
    _prefix("-u", "--unset", "-C", "--chdir", assignments=True)(walker, argv, piped)


def _sudo(walker: Walker, argv: list[str], piped: bool) -> None:
    if any(a in {"-i", "-s", "--login", "--shell", "-e"} for a in argv[1:2]) or len(argv) == 1:
        walker.opaque("it opens a shell as another user")
    _prefix("-u", "-g", "-h", "-p", "-U", "-C", "-D", "-R", "-T", "--user", "--group", assignments=True)(
        walker, argv, piped
    )


def _su(walker: Walker, argv: list[str], piped: bool) -> None:
    command = read(argv, ("-c", "--command", "-s", "-g")).value("-c", "--command")
    if command is None or not is_literal(command):
        return walker.opaque("it opens a shell as another user")
    return walker.program(command)


def _shell(walker: Walker, argv: list[str], piped: bool) -> None:
    words = argv[1:]
    while words and words[0][:1] in {"-", "+"} and words[0] not in {"-", "--"}:
        option = words.pop(0)
        if option in {"-o", "+o", "-O", "+O", "--rcfile", "--init-file"} and words:
            words.pop(0)
        elif not option.startswith("--") and "c" in option[1:]:
            if not words or not is_literal(words[0]):
                return walker.opaque("a shell runs a text that is not known")
            for number, value in enumerate(words[1:]):
                walker.variables[str(number)] = value
            return walker.program(words[0])
    if words and words[0] not in {"-", "--"}:
        walker.path("read", words[0], argv[0])
        return walker.opaque("a script runs whose text is not known")
    if piped:
        # a here-document that is known was walked already; anything else is not known
        if not _fed_by_text(walker):
            walker.opaque("a shell runs what another program writes")
        return None
    return walker.opaque("a shell waits for commands")


def _fed_by_text(walker: Walker) -> bool:
    return walker.fed


def _eval(walker: Walker, argv: list[str], piped: bool) -> None:
    text = " ".join(argv[1:])
    if not is_literal(text):
        return walker.opaque("a text runs as a command that is not known")
    return walker.program(text) if text.strip() else None


def _source(walker: Walker, argv: list[str], piped: bool) -> None:
    for path in argv[1:2]:
        walker.path("read", path, argv[0])
    walker.opaque("a script runs whose text is not known")


def _exec(walker: Walker, argv: list[str], piped: bool) -> None:
    _prefix("-a")(walker, argv, piped)


def _command(walker: Walker, argv: list[str], piped: bool) -> None:
    if argv[1:2] and argv[1] in {"-v", "-V"}:
        return
    _prefix()(walker, argv, piped)


def _xargs(walker: Walker, argv: list[str], piped: bool) -> None:
    words = argv[1:]
    replaced: str | None = None
    while words and words[0].startswith("-"):
        option = words.pop(0)
        if (
            option in {"-I", "--replace", "-n", "-L", "-P", "-s", "-d", "-a", "-E", "--max-args", "--max-procs"}
            and words
        ):
            value = words.pop(0)
            replaced = value if option in {"-I", "--replace"} else replaced
        elif option.startswith("-I"):
            replaced = option[2:]
    if not words:
        return
    words = [word.replace(replaced, UNKNOWN) for word in words] if replaced else [*words, UNKNOWN]
    _run(walker, words, piped=True)


def _find(walker: Walker, argv: list[str], piped: bool) -> None:
    words = argv[1:]
    places: list[str] = []
    while words and (words[0] in {"-H", "-L", "-P"} or not words[0].startswith(("-", "(", "!"))):
        if not words[0].startswith("-"):
            places.append(words[0])
        words.pop(0)
    places = places or ["."]
    for place in places:
        walker.path("read", place, "find", "metadata", "recursive")
    names = [words[i + 1] for i, word in enumerate(words[:-1]) if word in {"-name", "-iname", "-path"}]
    inside = f"/\x05/{names[0]}" if len(names) == 1 else "/\x05"
    below = [place.rstrip("/") + inside for place in places]
    narrowed = any(
        word in {"-name", "-iname", "-path", "-regex", "-mtime", "-empty", "-newer", "-size"} for word in words
    )
    while words:
        word = words.pop(0)
        if word == "-delete":
            for place, inside in zip(places, below, strict=True):
                walker.path("delete", inside if narrowed else place, "find", "recursive")
        elif word in {"-exec", "-execdir", "-ok", "-okdir"}:
            inner: list[str] = []
            while words and words[0] not in {";", "+"}:
                inner.append(words.pop(0))
            for place in below:
                _run(walker, [part.replace("{}", place) for part in inner], piped=False)
        elif word in {"-fprint", "-fprintf", "-fls", "-fprint0"} and words:
            walker.path("write", words[0], "find", "overwrite")


def _cd(walker: Walker, argv: list[str], piped: bool) -> None:
    operands = read(argv).operands
    target = operands[0] if operands else walker.home
    walker.change_folder(target if target != "-" else UNKNOWN)


def _alias(walker: Walker, argv: list[str], piped: bool) -> None:
    if len(argv) > 1:
        walker.opaque("the meaning of a command is changed")


def _trap(walker: Walker, argv: list[str], piped: bool) -> None:
    if len(argv) > 2 and argv[1] not in {"-", ""}:
        if not is_literal(argv[1]):
            return walker.opaque("a text runs as a command that is not known")
        walker.program(argv[1])
    return None


def _interpreter(walker: Walker, argv: list[str], piped: bool) -> None:
    if argv[1:] and all(a in {"--version", "-V", "-v", "--help", "-h"} for a in argv[1:]):
        return
    walker.add(Fact("execute", "process", argv[0], program=argv[0], argv=tuple(argv), unresolved=True))
    walker.opaque(f"it runs a program text for {argv[0]}, whose effects are not known")


def _busybox(walker: Walker, argv: list[str], piped: bool) -> None:
    _run(walker, argv[1:], piped=piped)


def _kill(walker: Walker, argv: list[str], piped: bool) -> None:
    walker.add(Fact("control", "process", " ".join(argv[1:]), program=argv[0], argv=tuple(argv)))


PROGRAMS: Final[dict[str, Program]] = {
    "env": _env, "sudo": _sudo, "doas": _sudo, "su": _su, "runuser": _su,
    "nice": _prefix("-n", "--adjustment"), "ionice": _prefix("-c", "-n"), "nohup": _prefix(), "setsid": _prefix(),
    "timeout": _prefix("-s", "-k", "--signal", "--kill-after", operands=1), "stdbuf": _prefix("-i", "-o", "-e"),
    "time": _prefix("-f", "-o"), "chronic": _prefix(), "unbuffer": _prefix(), "watch": _prefix("-n", "-d"),
    "taskset": _prefix(operands=1), "flock": _prefix("-w", "-E", operands=1), "chroot": _prefix("--userspec", operands=1),
    "caffeinate": _prefix(), "builtin": _prefix(), "command": _command, "exec": _exec,
    **dict.fromkeys(["sh", "bash", "dash", "zsh", "ksh", "ash"], _shell),
    "eval": _eval, "source": _source, ".": _source, "xargs": _xargs, "parallel": _xargs, "find": _find,
    "cd": _cd, "pushd": _cd, "popd": _alias, "alias": _alias, "unalias": _alias, "trap": _trap, "busybox": _busybox, "toybox": _busybox,
    **dict.fromkeys(
        ["python", "python2", "python3", "node", "nodejs", "deno", "bun", "perl", "ruby", "php", "lua", "Rscript", "osascript", "pwsh", "tclsh", "gdb", "make", "cmake", "ninja", "npx", "uvx", "pipx", "java", "go", "cargo", "gcc", "cc", "g++", "clang", "vim", "vi", "nano", "emacs", "ed", "ex", "script", "expect"], _interpreter),
    "kill": _kill, "pkill": _kill, "killall": _kill,
}  # fmt: skip
