"""Compile a folder of authors' YAML into the canonical bytes of a bundle. Same folder, same bytes.

Reads the folder, brings what people write into the one compiled form (defaults, lists, order), and lets
``policy.parse`` judge the result: the checks live there once. Each problem is shown with file, line and rule.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from safety_wrapper.canonical import canonical_json
from safety_wrapper.cli.policy_normal import example_cases, rule_template, sorted_rule, sorted_tool, with_route_defaults
from safety_wrapper.cli.policy_yaml import MAX_FILE_BYTES, Document, YamlRefusedError, parse_yaml
from safety_wrapper.errors import BundleFormatError, CanonicalError
from safety_wrapper.policy.bundle import MAX_BUNDLE_BYTES, parse
from safety_wrapper.policy.faults import BundleShapeError, Fault, Place, where
from safety_wrapper.policy.tool_shape import registry_key

FOLDERS: Final = ("adapters", "rules", "suite", "tools")
FILES: Final = ("bundle.yaml", "egress.yaml", "prices.yaml", "redaction.yaml", "templates.yaml")
#: For people, beside the sources; not compiled.
NOTES: Final = ("README.md",)
MAX_FILES: Final = 500
_STEM: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}\.yaml")
_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\d(?:T\d\d:\d\d(?::\d\d)?(?:Z|[-+]\d\d:\d\d))?", re.ASCII)
_HEAD: Final = ("name", "version", "min_wrapper", "expires_at")


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing an author has to correct. ``file`` is relative to the source folder; ``line`` counts from 1."""

    file: str
    line: int
    message: str
    rule: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {f'{self.rule}: ' if self.rule else ''}{self.message}"


class SourceError(BundleFormatError):
    """The source does not compile. ``problems``: at least one, sorted by file and line."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
        super().__init__(f"{self.problems[0]}{more}", do="correct the source; `safety-wrapper policy lint` shows all")


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where a part of the compiled bundle was written."""

    file: str
    place: Place
    rule: str = ""


@dataclass(slots=True)
class _Work:
    """What is being compiled: the parsed files, what came of them, and where each part came from."""

    documents: dict[str, Document] = field(default_factory=dict)
    origins: dict[Place, _Origin] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def complain(self, file: str, place: Place, message: str, rule: str = "") -> None:
        self.problems.append(Problem(file, self.line(file, place), message, rule))

    def line(self, file: str, place: Place) -> int:
        """The line of the deepest part of ``place`` that was written."""
        lines = self.documents[file].lines if file in self.documents else {}
        for end in range(len(place), -1, -1):
            if place[:end] in lines:
                return lines[place[:end]]
        return 1

    def stop_on_problems(self) -> None:
        if self.problems:
            raise SourceError(self.problems)


def compile_source(folder: Path, *, expires_at: int | None = None) -> bytes:
    """The canonical bytes of ``bundle.json``. Raises SourceError with every problem that could be found.

    ``expires_at`` (seconds) takes the place of the one that is written, for throw-away installations and tests.
    """
    work = _Work()
    for name, data in _read_folder(folder).items():
        try:
            work.documents[name] = parse_yaml(data)
        except YamlRefusedError as exc:
            work.problems.append(Problem(name, exc.line, exc.message))
    work.stop_on_problems()
    bundle = _assemble(work, expires_at)
    work.stop_on_problems()
    try:
        data = canonical_json(bundle)
        parse(data)
    except BundleShapeError as exc:
        raise SourceError(_located(work, bundle, fault) for fault in exc.faults) from exc
    except (BundleFormatError, CanonicalError) as exc:
        raise SourceError([Problem("bundle.yaml", 1, exc.message)]) from exc
    return data


def _read_folder(folder: Path) -> dict[str, bytes]:
    """Every source file by its relative name. A link, an unknown name or too much of anything is a problem."""
    found: dict[str, bytes] = {}
    problems: list[Problem] = []
    try:
        for path in sorted(folder.iterdir()):
            if path.name in FOLDERS and not path.is_symlink() and path.is_dir():
                inner = sorted(path.iterdir())
                problems += [
                    Problem(f"{path.name}/{p.name}", 1, "not a name for a source file: [a-z0-9_-]+.yaml")
                    for p in inner
                    if not _STEM.fullmatch(p.name)
                ]
                found |= {f"{path.name}/{p.name}": _read_file(p) for p in inner if _STEM.fullmatch(p.name)}
            elif path.name in FILES:
                found[path.name] = _read_file(path)
            elif path.name not in NOTES:
                problems.append(Problem(path.name, 1, "not a part of a bundle's source"))
            if len(found) > MAX_FILES or sum(map(len, found.values())) > MAX_BUNDLE_BYTES:
                raise SourceError([Problem(".", 1, f"more than {MAX_FILES} files or {MAX_BUNDLE_BYTES} bytes")])
    except OSError as exc:
        raise SourceError([Problem(".", 1, f"can't be read: {exc.strerror}")]) from exc
    if "bundle.yaml" not in found:
        problems.append(Problem("bundle.yaml", 1, "missing"))
    if problems:
        raise SourceError(problems)
    return found


def _read_file(path: Path) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(None, f"{path.name} is not a plain file")
        return file.read(MAX_FILE_BYTES + 1)


def _assemble(work: _Work, expires_at: int | None) -> dict[str, Any]:
    bundle: dict[str, Any] = {"format": 1, **_head(work, expires_at)}
    cases: list[tuple[Any, _Origin]] = []
    rules: list[tuple[Any, _Origin]] = []
    templates: dict[str, Any] = {}
    for rule, origin in _entries(work, "rules"):
        rules.append((sorted_rule(rule), origin))
        examples, faults = example_cases(rule)
        cases += [(case, _Origin(origin.file, (*origin.place, *place), origin.rule)) for place, case in examples]
        for place, message in faults:
            work.complain(origin.file, (*origin.place, *place), message, origin.rule)
        if origin.rule and origin.rule not in templates and (template := rule_template(rule)):
            templates[origin.rule] = template
            work.origins["templates", origin.rule] = origin
    cases += _entries(work, "suite")
    bundle["rules"] = _placed(work, "rules", rules)
    bundle["suite"] = _placed(work, "suite", cases)
    bundle["egress"] = _placed(work, "egress", [(with_route_defaults(r), o) for r, o in _entries(work, "egress.yaml")])
    bundle["redaction"] = _whole(work, "redaction.yaml", [])
    bundle["prices"] = _whole(work, "prices.yaml", {})
    bundle["templates"] = _templates(work, templates)
    bundle["tools"] = _tools(work)
    bundle["adapters"] = _adapters(work)
    return bundle


def _head(work: _Work, expires_at: int | None) -> dict[str, Any]:
    head = _mapping(work, "bundle.yaml")
    for key in head.keys() - {*_HEAD, "summary"}:
        work.complain("bundle.yaml", (key,), f"unknown key {key}")
    if not isinstance(head.get("summary", ""), str):
        work.complain("bundle.yaml", ("summary",), "must be text")
    compiled = {key: head[key] for key in _HEAD if key in head}
    if expires_at is not None:
        compiled["expires_at"] = expires_at
    elif isinstance(head.get("expires_at"), str):
        at = _instant(head["expires_at"])
        if at is None:
            work.complain("bundle.yaml", ("expires_at",), "must be a date (2027-06-30) or an instant with its zone")
        compiled["expires_at"] = at
    for key in compiled:
        work.origins[key,] = _Origin("bundle.yaml", (key,))
    return compiled


def _instant(text: str) -> int | None:
    """Seconds of an ISO date (00:00 UTC of that day) or of an instant that says its zone."""
    if not _INSTANT.fullmatch(text):
        return None
    try:
        return int(dt.datetime.fromisoformat(text if "T" in text else f"{text}T00:00Z").timestamp())
    except ValueError:
        return None


def _entries(work: _Work, part: str) -> list[tuple[Any, _Origin]]:
    """The items of all list files of a part, with their origins."""
    found: list[tuple[Any, _Origin]] = []
    key = "name" if part == "tools" else "id"
    for name in sorted(work.documents):
        if name != part and not name.startswith(f"{part}/"):
            continue
        value = work.documents[name].value
        if not isinstance(value, list):
            work.complain(name, (), "must be a list")
            continue
        for index, item in enumerate(value):
            label = item.get(key) if isinstance(item, dict) else None
            if not isinstance(item, dict):
                work.complain(name, (index,), "must be a mapping")
            elif not isinstance(label, str) or not label:
                work.complain(name, (index,), f"must say its {key}")
            else:
                found.append((item, _Origin(name, (index,), label)))
    return found


def _placed(work: _Work, section: str, items: list[tuple[Any, _Origin]]) -> list[Any]:
    """The items sorted by id; two of one id are a problem."""
    seen: dict[str, _Origin] = {}
    for item, origin in items:
        first = seen.setdefault(item["id"], origin)
        if first is not origin:
            line = work.line(first.file, first.place)
            work.complain(origin.file, origin.place, f"{item['id']} stands in {first.file}:{line} already", origin.rule)
    ordered = sorted(items, key=lambda pair: pair[0]["id"])
    work.origins |= {(section, index): origin for index, (_, origin) in enumerate(ordered)}
    return [item for item, _ in ordered]


def _templates(work: _Work, templates: dict[str, Any]) -> dict[str, Any]:
    for rule_id, template in _mapping(work, "templates.yaml", {}).items():
        if rule_id in templates:
            work.complain("templates.yaml", (rule_id,), "the rule itself says its sentences already", rule_id)
        templates[rule_id] = template
        work.origins["templates", rule_id] = _Origin("templates.yaml", (rule_id,), rule_id)
    return templates


def _tools(work: _Work) -> dict[str, Any]:
    tools: dict[str, Any] = {}
    for entry, origin in _entries(work, "tools"):
        key = registry_key(str(entry.get("kind")), str(entry.get("name")))
        if key in tools:
            work.complain(origin.file, origin.place, f"the tool {key} is listed twice", origin.rule)
        tools[key] = sorted_tool(entry)
        work.origins["tools", key] = origin
    return tools


def _adapters(work: _Work) -> dict[str, Any]:
    adapters: dict[str, Any] = {}
    for name in sorted(work.documents):
        if name.startswith("adapters/"):
            system = name.removeprefix("adapters/").removesuffix(".yaml")
            adapters[system] = work.documents[name].value
            work.origins["adapters", system] = _Origin(name, (), system)
    return adapters


def _whole(work: _Work, name: str, default: Any) -> Any:
    if name not in work.documents:
        return default
    work.origins[name.removesuffix(".yaml"),] = _Origin(name, ())
    return work.documents[name].value


def _mapping(work: _Work, name: str, default: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    if name not in work.documents and default is not None:
        return default
    value = work.documents[name].value
    if isinstance(value, dict):
        return value
    work.complain(name, (), "must be a mapping")
    return {}


def _located(work: _Work, bundle: Mapping[str, Any], fault: Fault) -> Problem:
    """A fault of the compiled form at the place where its author wrote it."""
    place = fault.place
    if place[:1] == ("rules",) and len(place) > 3 and place[2] == "examples":
        place = (*place[:2], *place[3:])
    for end in range(len(place), 0, -1):
        origin = work.origins.get(place[:end])
        if origin is not None:
            rest = place[end:]
            at = f"{where(rest)}: " if rest else ""
            return Problem(origin.file, work.line(origin.file, (*origin.place, *rest)), at + fault.message, origin.rule)
    return Problem("bundle.yaml", 1, fault.message)
