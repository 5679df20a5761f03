"""Follows a program through control flow: every command in it counts, whichever branch it stands in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import brush_parser as brush

from safety_wrapper.policy import Policy
from sw_classification.facts import Fact, Findings
from sw_classification.files import display
from sw_classification.paths import is_known, resolve
from sw_classification.shell import parse as parsing
from sw_classification.shell.parse import NotUnderstoodError
from sw_classification.shell.words import Expansion, expand
from sw_classification.symbolic import UNKNOWN, is_literal

MAX_DEPTH: Final = 12
MAX_COMMANDS: Final = 2000
#: Devices that swallow or give bytes and keep nothing.
HARMLESS_DEVICES: Final = frozenset(
    {"/dev/null", "/dev/stdout", "/dev/stderr", "/dev/stdin", "/dev/tty", "/dev/zero", "/dev/urandom", "/dev/random"}
)
_NO_OUTPUT: Final = frozenset({"", ":", "true"})


class Walker:
    """The state of a shell as far as it is known: folder, variables, functions. Adds facts to ``findings``."""

    def __init__(self, findings: Findings, policy: Policy, *, cwd: str | None, home: str) -> None:
        self.findings = findings
        self.policy = policy
        self.cwd = cwd
        self.home = home
        self.variables: dict[str, str] = {"HOME": home}
        self.functions: dict[str, Any] = {}
        self._depth = 0
        self._count = 0
        self._fed = False

    # ── what programs use ────────────────────────────────────────────────────────────────────────────────────

    @property
    def fed(self) -> bool:
        """True while the command that runs reads a text that stands in the program and was walked already."""
        return self._fed

    def program(self, text: str) -> None:
        """A text that a shell runs."""
        self._depth += 1
        try:
            if self._depth > MAX_DEPTH:
                raise NotUnderstoodError("the command is nested too deeply to be judged")
            self._each(parsing.parse(text).complete_commands)
        except NotUnderstoodError as exc:
            self.opaque(str(exc))
            self._controls_in(text)
        finally:
            self._depth -= 1

    def _controls_in(self, text: str) -> None:
        """A text that can't be read, but names what keeps the agent safe, counts as touching it."""
        for name in _CONTROL_NAMES:
            if name in text:
                self.add(Fact("control", "control", name, program="safety-wrapper"))

    def opaque(self, reason: str) -> None:
        """Something here can't be bounded."""
        self.findings.make_opaque(reason)

    def add(self, fact: Fact) -> None:
        """One effect."""
        self.findings.facts.append(fact)

    def path(self, kind: str, text: str, program: str, *flags: str, argv: Iterable[str] = ()) -> None:
        """An effect on a path, as written on the command line."""
        if text.startswith("-") and len(text) > 1 and not is_literal(text):
            self.opaque("an option of the command is not known")
        resolved = resolve(text, self.cwd)
        if resolved in HARMLESS_DEVICES:
            return
        self.add(
            Fact(
                kind, "path", display(resolved), program=program, argv=tuple(argv), flags=frozenset(flags),
                path=resolved, unresolved=not is_known(resolved), recursive="recursive" in flags,
            )
        )  # fmt: skip

    def command(self, argv: list[str], *, piped: bool = False) -> None:
        """A command whose words are known; ``piped``: it reads what another one wrote."""
        from sw_classification.shell.programs import run

        self._count += 1
        if self._count > MAX_COMMANDS:
            raise NotUnderstoodError("the command has too many parts to be judged")
        self._depth += 1
        try:
            if self._depth > MAX_DEPTH:
                raise NotUnderstoodError("the command is nested too deeply to be judged")
            run(self, argv, piped=piped)
        finally:
            self._depth -= 1

    def change_folder(self, target: str) -> None:
        """``cd``."""
        self.cwd = resolve(target, self.cwd) if UNKNOWN not in target else None

    # ── the walk ─────────────────────────────────────────────────────────────────────────────────────────────

    def _each(self, lists: Iterable[brush.CompoundList]) -> None:
        for compound in lists:
            for item in compound.items:
                self._pipeline(item.list.first)
                for more in item.list.additional:
                    self._pipeline(_of(more).pipeline)

    def _pipeline(self, pipeline: brush.Pipeline) -> None:
        several = len(pipeline.seq) > 1
        for number, command in enumerate(pipeline.seq):
            before = (self.cwd, dict(self.variables))
            self._command(command, piped=number > 0)
            if several:  # each part of a pipe is a shell of its own
                self.cwd, self.variables = before

    def _command(self, command: Any, *, piped: bool) -> None:
        kind = type(command).__name__.rpartition(".")[2]
        if kind == "Simple":
            self._simple(command.command, piped=piped)
            return None
        if kind == "Function":
            name = command.definition.fname.value
            self.functions[name] = command.definition.body.command
            self._redirects(getattr(command.definition.body, "redirects", None), "function", [])
            return None
        if kind == "ExtendedTest":
            if "[" in str(command.command) and _evaluates(str(command.command)):
                raise NotUnderstoodError("a test may run what stands in a subscript")
            self._inside(command.command)
            self._redirects(command.redirects, "test", [])
            return None
        if kind == "Compound":
            self._redirects(command.redirects, "group", [])
            return self._compound(command.command, piped=piped)
        raise NotUnderstoodError("the command has a part that is not known")

    def _compound(self, compound: Any, *, piped: bool) -> None:
        kind = type(compound).__name__.rpartition(".")[2]
        body = compound.command
        if kind == "Subshell":
            before = (self.cwd, dict(self.variables))
            self._each((body.list,))
            self.cwd, self.variables = before
        elif kind == "BraceGroup":
            self._each((body.list,))
        elif kind == "IfClause":
            self._branches([body.condition, body.then, *self._elses(body)])
        elif kind in {"WhileClause", "UntilClause"}:
            self._branches([body.condition, body.body.list], twice=True)
        elif kind == "ForClause":
            self._for(body)
        elif kind == "CaseClause":
            self._word(body.value.value)
            self._branches([case.cmd for case in body.cases if case.cmd is not None])
        elif kind == "Arithmetic":
            if "$(" in body.expr.value or "`" in body.expr.value:
                raise NotUnderstoodError("a command may run inside arithmetic")
        else:
            raise NotUnderstoodError("the command has a part that is not known")

    def _elses(self, body: Any) -> list[Any]:
        found: list[Any] = []
        for each in body.elses or ():
            found.extend(part for part in (each.condition, each.body) if part is not None)
        return found

    def _branches(self, lists: list[Any], *, twice: bool = False) -> None:
        """Every branch may run: what they leave different is not known afterwards."""
        for _ in range(2 if twice else 1):
            for each in lists:
                before = (self.cwd, dict(self.variables))
                self._each((each,))
                self._forget_differences(before)

    def _forget_differences(self, before: tuple[str | None, dict[str, str]]) -> None:
        if self.cwd != before[0]:
            self.cwd = None
        for name in self.variables.keys() | before[1].keys():
            if self.variables.get(name) != before[1].get(name):
                self.variables[name] = UNKNOWN

    def _for(self, body: Any) -> None:
        values: list[str] = []
        for word in body.values or ():
            values.extend(self._word(word.value).fields)
        name = body.variable_name
        known = bool(values) and len(values) <= 32
        for value in values if known else [UNKNOWN]:
            self.variables[name] = value
            before = (self.cwd, dict(self.variables))
            self._each((body.body.list,))
            self._forget_differences(before)
        self.variables[name] = UNKNOWN

    def _inside(self, value: Any) -> None:
        """Words anywhere below: what they substitute runs."""
        if isinstance(value, brush.Word):
            self._word(value.value)
        elif isinstance(value, tuple):
            for each in value:
                self._inside(each)
        elif hasattr(value, "__match_args__") and not isinstance(value, (str, int, brush.SourceSpan)):
            for name in value.__match_args__:
                self._inside(getattr(value, name))

    def _word(self, text: str) -> Expansion:
        found = expand(text, self.variables, self.home)
        for inner in found.commands:
            before = (self.cwd, dict(self.variables))
            if inner.strip().startswith("<"):
                self.path("read", self._word(inner.strip()[1:].strip()).fields[0], "bash")
            else:
                self.program(inner)
            self.cwd, self.variables = before
        return found

    def _simple(self, command: brush.SimpleCommand, *, piped: bool) -> None:
        redirects: list[Any] = []
        assigned: dict[str, str] = {}
        for item in command.prefix.items if command.prefix else ():
            if (redirect := getattr(item, "redirect", None)) is not None:
                redirects.append(redirect)
            elif (assignment := getattr(item, "assignment", None)) is not None:
                assigned.update(self._assign(assignment))
        words: list[str] = []
        raw = [command.word_or_name.value] if command.word_or_name is not None else []
        argv: list[str] = []
        unsplit_name = False
        for text in raw:
            found = self._word(text)
            unsplit_name = found.unsplit
            argv.extend(found.fields)
        for item in command.suffix.items if command.suffix else ():
            if (redirect := getattr(item, "redirect", None)) is not None:
                redirects.append(redirect)
            elif (inner := getattr(item, "command", None)) is not None:
                self._subshell(inner)
                argv.append("/dev/fd/63")
            elif (word := getattr(item, "word", None)) is not None:
                argv.extend(self._word(word.value).fields)
        del words
        fed = self._redirects(redirects, argv[0] if argv else "", argv)
        if {"BASH_CMDS", "BASH_ALIASES"} & assigned.keys():
            raise NotUnderstoodError("the meaning of a command is changed")
        if not argv:
            self.variables.update(assigned)
            return
        if unsplit_name or not is_literal(argv[0]):
            raise NotUnderstoodError("which program runs is not known")
        for name in assigned:
            if name in _LOADS_CODE or name in {"BASH_CMDS", "BASH_ALIASES"}:
                self.opaque("a variable makes the program load something else")
        if argv[0] in self.functions:
            body = self.functions.pop(argv[0])
            self.variables.update({str(i): value for i, value in enumerate(argv[1:], 1)})
            self._compound(body, piped=piped)
            self.functions[argv[0]] = body
            return
        self._fed = fed
        self.command(argv, piped=piped or fed)
        self._fed = False

    def _subshell(self, inner: Any) -> None:
        before = (self.cwd, dict(self.variables))
        self._each((inner.list,))
        self.cwd, self.variables = before

    def _assign(self, assignment: Any) -> dict[str, str]:
        name = getattr(assignment.name, "name", None)
        if _evaluates(str(assignment.name)):
            raise NotUnderstoodError("a subscript may run something")
        word = getattr(assignment.value, "word", None)
        if not isinstance(name, str) or word is None:
            self._inside(assignment.value)
            return {str(name): UNKNOWN}
        fields = self._word(word.value).fields
        return {name: UNKNOWN if assignment.append else fields[0] if len(fields) == 1 else UNKNOWN}

    def _redirects(self, redirects: Any, program: str, argv: list[str]) -> bool:
        """Effects of redirections; True when the command is fed a text that stands in the program."""
        fed = False
        for redirect in getattr(redirects, "redirects", redirects) or ():
            kind = type(redirect).__name__.rpartition(".")[2]
            if kind == "HereDocument":
                fed = True
                self._here_document(redirect, argv)
            elif kind == "HereString":
                fed = True
                self._feed(argv, self._word(redirect.word.value).fields[0])
            elif kind == "OutputAndError":
                self._write(self._word(redirect.target.value).fields[0], program, argv, append=redirect.append)
            elif kind == "File":
                self._file_redirect(redirect, program, argv)
            else:
                raise NotUnderstoodError("a redirection of the command is not known")
        return fed

    def _file_redirect(self, redirect: Any, program: str, argv: list[str]) -> None:
        how = str(redirect.kind).rpartition(".")[2]
        target = redirect.target
        if (inner := getattr(target, "command", None)) is not None:
            return self._subshell(inner)
        word = getattr(target, "word", None)
        if word is None:
            return None
        name = self._word(word.value).fields[0]
        if how in {"DuplicateInput", "DuplicateOutput"}:
            if name.rstrip("-").isdigit() or name == "-":
                return None
            how = "Write" if how == "DuplicateOutput" else "Read"  # ``>& file`` writes it
        if name.startswith(("/dev/tcp/", "/dev/udp/")):
            self.add(Fact("send", "host", name, program=program, external=True, unresolved=True))
            return None
        if how == "Read":
            return self.path("read", name, program)
        return self._write(name, program, argv, append=how == "Append")

    def _write(self, name: str, program: str, argv: list[str], *, append: bool) -> None:
        if append:
            return self.path("write", name, program, "append")
        empties = program in _NO_OUTPUT or argv[:2] == ["cat", "/dev/null"]
        return self.path("write", name, program, "overwrite", *(("truncate",) if empties else ()))

    def _here_document(self, redirect: Any, argv: list[str]) -> None:
        document = redirect.document
        text = document.doc.value
        if document.requires_expansion:
            for inner in _substitutions(text):
                self.program(inner)
            if "$" in text or "`" in text:
                text = UNKNOWN if _is_interpreter(argv) else text
        self._feed(argv, text)

    def _feed(self, argv: list[str], text: str) -> None:
        """Text on standard input: code for an interpreter, data for everything else."""
        if argv and argv[0].rpartition("/")[2] in _SHELLS and not [a for a in argv[1:] if not a.startswith("-")]:
            if is_literal(text):
                self.program(text)
            else:
                self.opaque("a shell is fed a text that is not known")


_SHELLS: Final = frozenset({"sh", "bash", "dash", "zsh", "ksh", "ash"})
#: Names that stand for nothing else: looked for only where the text can't be read.
_CONTROL_NAMES: Final = (
    "safety-wrapper",
    "openclaw",
    "sudoers",
    "sshd_config",
    "nft ",
    "iptables",
    "visudo",
    "crontab",
)
_LOADS_CODE: Final = frozenset(
    {
        "BASH_ENV",
        "BROWSER",
        "EDITOR",
        "ENV",
        "GIT_CONFIG_GLOBAL",
        "GIT_EDITOR",
        "GIT_EXTERNAL_DIFF",
        "GIT_PAGER",
        "GIT_SSH",
        "GIT_SSH_COMMAND",
        "IFS",
        "LD_AUDIT",
        "LD_LIBRARY_PATH",
        "LD_PRELOAD",
        "LESSOPEN",
        "MANPAGER",
        "NODE_OPTIONS",
        "PAGER",
        "PATH",
        "PERL5LIB",
        "PERL5OPT",
        "PROMPT_COMMAND",
        "PYTHONPATH",
        "PYTHONSTARTUP",
        "RUBYOPT",
        "VISUAL",
    }
)


def _evaluates(text: str) -> bool:
    return "$(" in text or "`" in text or "<(" in text


def _of(value: Any) -> Any:
    """A variant of one of the parser's unions, whose stubs don't name its fields."""
    return value


def _is_interpreter(argv: list[str]) -> bool:
    return bool(argv) and argv[0].rpartition("/")[2] in _SHELLS


def _substitutions(text: str) -> list[str]:
    """The commands inside an expanded here-document, by the word parser."""
    if "$(" not in text and "`" not in text:
        return []
    return expand('"' + text.replace('"', '\\"') + '"', {}, UNKNOWN).commands
