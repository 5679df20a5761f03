"""What each known program does. One table from a program's name to a function of its arguments.

A function adds facts through the walker. A program that stands in no table may do anything: opaque.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sw_classification.facts import Fact
from sw_classification.shell.programs import controls, files, network, readers, systems, wrappers
from sw_classification.shell.programs.arguments import Program
from sw_classification.symbolic import is_literal

if TYPE_CHECKING:
    from sw_classification.shell.walk import Walker

_TABLE: Final[dict[str, Program]] = {
    **readers.PROGRAMS,
    **files.PROGRAMS,
    **network.PROGRAMS,
    **systems.PROGRAMS,
    **wrappers.PROGRAMS,
    **controls.PROGRAMS,
}
#: Where programs of the system lie; the same name elsewhere is another program.
_SYSTEM_FOLDERS: Final = ("/bin/", "/usr/bin/", "/sbin/", "/usr/sbin/", "/usr/local/bin/", "/usr/local/sbin/")


def run(walker: Walker, argv: list[str], *, piped: bool) -> None:
    """Add what ``argv`` would do. ``piped``: its standard input is what another program wrote."""
    name = argv[0]
    if "/" in name:
        folder = next((f for f in _SYSTEM_FOLDERS if name.startswith(f) and "/" not in name[len(f) :]), None)
        name = name[len(folder) :] if folder else ""
    program = _TABLE.get(name)
    if name in _EVALUATES and any("[" in a and ("$(" in a or "`" in a) for a in argv[1:]):
        walker.opaque("a subscript may run something")
        return
    if program is None:
        walker.add(Fact("execute", "process", argv[0], program=name or argv[0], argv=tuple(argv), unresolved=True))
        walker.opaque("it runs a program whose effects are not known")
        return
    if name not in _TAKES_ANYTHING and any(not is_literal(a) and a[:1] in "\x01\x06" for a in argv[1:2]):
        walker.opaque("an option of the command may not be known")
    program(walker, [name, *argv[1:]], piped)


#: Builtins that evaluate the subscript of a name that they are given.
_EVALUATES: Final = frozenset(
    [
        "test",
        "printf",
        "read",
        "let",
        "wait",
        "declare",
        "typeset",
        "local",
        "export",
        "readonly",
        "unset",
        "mapfile",
        "readarray",
        "getopts",
        "shift",
    ]
)
_TAKES_ANYTHING: Final = frozenset(
    {"echo", "printf", "test", "[", "true", "false", ":", "export", "local", "return", "exit", "set"}
)
