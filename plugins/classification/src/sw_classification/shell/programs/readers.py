"""Programs that only read, with the options that make them do more."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from sw_classification.facts import Fact
from sw_classification.shell.programs.arguments import Program, read

if TYPE_CHECKING:
    from sw_classification.shell.walk import Walker


_NO_FILE: Final = re.compile(r"[-+\d,.:%]*[a-zA-Z]{0,2}|[^\w/.]{0,3}")


def _silent(walker: Walker, argv: list[str], piped: bool) -> None:
    """Nothing outside the shell is touched."""


def _reads(*with_value: str, skip: int = 0, recursive: tuple[str, ...] = (), default: str | None = None) -> Program:
    """Reads the files named; ``skip`` operands come first that are no files."""

    def program(walker: Walker, argv: list[str], piped: bool) -> None:
        arguments = read(argv, with_value)
        flags = ("recursive",) if arguments.has(*recursive) else ()
        paths = arguments.operands[skip:] or ((default,) if default and not piped else ())
        # the value of an option may be a file too, whatever we think of the option
        values = tuple(value for _, value in arguments.values if not _NO_FILE.fullmatch(value))
        for path in (*paths, *values):
            if path != "-":
                walker.path("read", path, argv[0], *flags, argv=argv)

    return program


def _names(*with_value: str, default: str | None = ".") -> Program:
    """Reads names and facts of files, not contents."""

    def program(walker: Walker, argv: list[str], piped: bool) -> None:
        for path in read(argv, with_value).operands or ((default,) if default else ()):
            walker.path("read", path, argv[0], "metadata", argv=argv)

    return program


def _grep(walker: Walker, argv: list[str], piped: bool) -> None:
    taking = ("-e", "-f", "-m", "-A", "-B", "-C", "--include", "--exclude", "--regexp", "--file", "-g", "-t", "--color")
    arguments = read(argv, taking)
    patterns = any(option in {"-e", "-f", "--regexp", "--file"} for option, _ in arguments.values)
    flags = ("recursive",) if arguments.has("-r", "-R", "--recursive") or argv[0] == "rg" else ()
    if argv[0] == "rg" and arguments.has("--pre"):
        walker.opaque("the search runs a program of its own")
    for option, value in arguments.values:
        if option in {"-f", "--file"}:
            walker.path("read", value, argv[0])
    paths = arguments.operands[0 if patterns else 1 :]
    for path in paths or ((".",) if flags and not piped else ()):
        walker.path("read", path, argv[0], *flags, argv=argv)


def _sort(walker: Walker, argv: list[str], piped: bool) -> None:
    arguments = read(argv, ("-o", "--output", "-k", "-t", "-S", "-T", "--key", "--files0-from", "--compress-program"))
    if arguments.has("--compress-program", "--files0-from"):
        walker.opaque("sort runs a program of its own, or reads names from a file")
    if (target := arguments.value("-o", "--output")) is not None:
        walker.path("write", target, "sort", "overwrite")
    for path in arguments.operands:
        walker.path("read", path, "sort")


def _tee(walker: Walker, argv: list[str], piped: bool) -> None:
    arguments = read(argv)
    for path in arguments.operands:
        walker.path("write", path, "tee", "append" if arguments.has("-a", "--append") else "overwrite")


def _uniq(walker: Walker, argv: list[str], piped: bool) -> None:
    operands = read(argv, ("-f", "-s", "-w")).operands
    for path in operands[:1]:
        walker.path("read", path, "uniq")
    for path in operands[1:2]:
        walker.path("write", path, "uniq", "overwrite")


def _env_dump(walker: Walker, argv: list[str], piped: bool) -> None:
    walker.add(Fact("read", "process", "environment", program=argv[0], flags=frozenset({"environment"})))


def _hash(walker: Walker, argv: list[str], piped: bool) -> None:
    if len(argv) > 1:
        walker.opaque("the meaning of a command is changed")


def _set(walker: Walker, argv: list[str], piped: bool) -> None:
    if len(argv) == 1:
        _env_dump(walker, argv, piped)


def _mapfile(walker: Walker, argv: list[str], piped: bool) -> None:
    if read(argv, ("-C", "-c", "-n", "-O", "-s", "-u", "-d")).has("-C"):
        walker.opaque("a command runs for each line")


def _shuf(walker: Walker, argv: list[str], piped: bool) -> None:
    arguments = read(argv, ("-o", "--output", "-n", "-i", "--random-source"))
    if (target := arguments.value("-o", "--output")) is not None:
        walker.path("write", target, "shuf", "overwrite")
    for path in arguments.operands:
        walker.path("read", path, "shuf")


def _jq(walker: Walker, argv: list[str], piped: bool) -> None:
    arguments = read(argv, ("--arg", "--argjson", "--slurpfile", "--rawfile", "--indent", "-f", "--from-file", "-L"))
    if argv[0] == "yq" and arguments.has("-i", "--inplace"):
        for path in arguments.operands[1:]:
            walker.path("write", path, argv[0])
        return
    if any("env" in word or "$ENV" in word or "input_filename" in word for word in arguments.operands[:1]):
        _env_dump(walker, argv, piped)
    files = [value for option, value in arguments.values if option not in {"--arg", "--argjson", "--indent"}]
    if any(option in {"--rawfile", "--slurpfile"} for option, _ in arguments.values):
        files.extend(arguments.operands)  # these take a name and a file
    for path in (*arguments.operands[1:], *files):
        walker.path("read", path, argv[0])


def _sed(walker: Walker, argv: list[str], piped: bool) -> None:
    in_place = any(
        a.startswith(("-i", "--in-place")) or (a[:1] == "-" and a[1:2] != "-" and "i" in a[1:]) for a in argv[1:]
    )
    arguments = read(
        [a for a in argv if not a.startswith(("-i", "--in-place"))], ("-e", "-f", "-l", "--expression", "--file")
    )
    scripts = [v for o, v in arguments.values if o in {"-e", "--expression"}]
    from_file = any(o in {"-f", "--file"} for o, _ in arguments.values)
    operands = list(arguments.operands)
    if not scripts and not from_file and operands:
        scripts = [operands.pop(0)]
    if from_file or any(_sed_does_more(script) for script in scripts):
        walker.opaque("the sed script may run or write something")
    for path in operands:
        walker.path("write" if in_place else "read", path, "sed")


def _sed_does_more(script: str) -> bool:
    """``e`` runs commands, ``w`` writes files; a plain substitution or print does neither."""
    if re.fullmatch(r"(\d+|\$)?(,(\d+|\$))?[pdq=]", script):
        return False
    plain = re.fullmatch(
        r"(?:[\d$,/\w^. -]*)s(?P<d>[/|#,@:!])(?:(?!(?P=d)).)*(?P=d)(?:(?!(?P=d)).)*(?P=d)[gipI0-9]*", script
    )
    return plain is None and not re.fullmatch(r"/[^/]*/[pd!]{1,2}", script)


def _awk(walker: Walker, argv: list[str], piped: bool) -> None:
    arguments = read(argv, ("-F", "-v", "-f", "--assign", "--file", "-i", "-l", "-e"))
    operands = list(arguments.operands)
    if arguments.has("-f", "--file", "-i", "-l", "-e") or not operands:
        return walker.opaque("the awk program is not known")
    script = operands.pop(0)
    if any(word in script for word in ("system", "getline", ">", "|", "@", "close", "\x01", "ENVIRON")):
        walker.opaque("the awk program may run or write something")
    for path in operands:
        if "=" not in path:
            walker.path("read", path, argv[0])
    return None


def _tail_like() -> Program:
    return _reads("-n", "-c", "--lines", "--bytes", "-s", "--pid", "-w")


def _table(names: str, program: Program) -> dict[str, Program]:
    return dict.fromkeys(names.split(), program)


def _time_of_day(walker: Walker, argv: list[str], piped: bool) -> None:
    arguments = read(argv, ("-d", "--date", "-f", "--file", "-r", "--reference", "-s", "--set"))
    for listed in (arguments.value("-f", "--file"), arguments.value("-r", "--reference")):
        if listed is not None:
            walker.path("read", listed, "date")
    if arguments.has("-s", "--set"):
        walker.add(Fact("control", "control", "system clock", program="date"))


PROGRAMS: Final[dict[str, Program]] = {
    **_table(
        "echo printf true false : test [ pwd whoami id hostname uname seq basename dirname expr sleep arch nproc tty groups "
        "cal factor yes getconf locale tput clear return exit break continue shift local let wait umask type which "
        "times getopts read declare typeset readonly set shopt history jobs fg bg uptime free "
        "lscpu lsblk lsmem vmstat iostat w who last ps top pgrep pidof dircolors stty",
        _silent,
    ),
    "unset": _silent,
    "hash": _hash,
    "set": _set,
    "mapfile": _mapfile,
    "readarray": _mapfile,
    "shuf": _shuf,
    "export": _silent,
    **_table("cat wc nl tac rev fold column expand unexpand fmt paste join comm cksum sum md5sum sha1sum sha224sum sha256sum "
             "sha384sum sha512sum b2sum base64 base32 od hexdump xxd strings zcat bzcat xzcat zstdcat more less file iconv "
             "diff cmp sdiff diff3 look pr ptx tsort numfmt", _reads("-w", "-d", "-n", "-f", "-t", "-N", "-s", "-c")),
    **_table("head tail", _tail_like()),
    **_table("cut tr", _reads("-d", "-f", "-c", "-b", "--delimiter", "--fields", skip=0)),
    "tr": _silent,
    **_table("ls dir vdir tree exa eza", _names("-I", "-w", "-L", "--color", "-T")),
    **_table("stat readlink realpath du df mountpoint namei findmnt getfacl lsattr", _names("-c", "--format", "-d", "-t")),
    **_table("grep egrep fgrep zgrep rg", _grep),
    "sort": _sort, "tee": _tee, "uniq": _uniq, "printenv": _env_dump, "jq": _jq, "yq": _jq,
    "sed": _sed, "awk": _awk, "gawk": _awk, "mawk": _awk, "date": _time_of_day,
}  # fmt: skip
