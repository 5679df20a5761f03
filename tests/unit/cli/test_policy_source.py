"""From a folder of YAML to canonical bytes; each problem is shown with file, line and rule."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safety_wrapper.cli.policy_source import MAX_FILES, SourceError, compile_source
from safety_wrapper.policy import parse

HEAD = "name: sample\nversion: 3\nmin_wrapper: 0.1.0\nexpires_at: 2027-06-30\nsummary: A sample.\n"
#: The rule of docs/reference/schemas.md §5, as written there.
RULES = """\
- id: files.delete.recursive
  class: RED
  when:                      # all keys must hold; a list means any of
    effect: delete
    path: {under: ["/srv", "/home"], not_under: ["/srv/tmp"]}
    flags: {any: [recursive]}
  escalate:
    - {when: {path: {is: ["/", "/srv", "/home"]}}, class: CRITICAL_RED}
  reason: "this deletes a whole folder ({path})"
  instead: "Move it to the trash with sw_exec: gio trash PATH."
  match:    [{tool: exec, params: {command: "rm -r /srv/app/old"}}]
  no_match: [{tool: exec, params: {command: "echo rm -r /srv/app"}}, {tool: exec, params: {command: "rm -r /srv/tmp/x"}}]
"""  # noqa: E501
#: The same rule as compiled, from the same page.
COMPILED_RULE = (
    '{"class":"RED","escalate":[{"class":"CRITICAL_RED","when":{"path":{"is":["/","/home","/srv"]}}}],'
    '"examples":{"match":["files.delete.recursive/m1"],"no_match":["files.delete.recursive/n1",'
    '"files.delete.recursive/n2"]},"id":"files.delete.recursive","raise_only":false,"when":{"effect":["delete"],'
    '"flags":{"any":["recursive"]},"path":{"not_under":["/srv/tmp"],"under":["/home","/srv"]}}}'
)
TOOLS = """\
- name: exec
  kind: own_tool
  runs: runner
  offer: true
  summary: Run a command.
  params:
    type: object
    additionalProperties: false
    required: [command]
    properties:
      command: {type: string, maxLength: 1000}
  base: {class: GREEN}
  effects: [{kind: execute, resource: process, from: command}]
- name: exec
  kind: builtin
  runs: gateway
  summary: The gateway's own.
  params: {type: object, additionalProperties: false}
  base: {class: YELLOW}
"""
SUITE = "- {id: exec.list, tool: exec, params: {command: ls}, expect: {class: GREEN}}\n"
FILES = {"bundle.yaml": HEAD, "rules/files.yaml": RULES, "tools/base.yaml": TOOLS, "suite/base.yaml": SUITE}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A sound source folder."""
    return write(tmp_path / "source", FILES)


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def compiled(folder: Path) -> Any:
    return json.loads(compile_source(folder))


def problems(folder: Path) -> list[str]:
    with pytest.raises(SourceError) as caught:
        compile_source(folder)
    assert caught.value.problems
    return [str(problem) for problem in caught.value.problems]


# ── what comes out ───────────────────────────────────────────────────────────────────────────────────────────────


def test_the_documented_rule_compiles_to_the_documented_bytes(source: Path) -> None:
    assert COMPILED_RULE.encode() in compile_source(source)


def test_the_result_is_a_bundle(source: Path) -> None:
    bundle = parse(compile_source(source))
    assert (bundle.name, bundle.version, bundle.expires_at) == ("sample", 3, 1_814_313_600)
    assert set(bundle.tools) == {"exec", "builtin:exec"}
    assert [case["id"] for case in bundle.suite] == [
        "exec.list",
        "files.delete.recursive/m1",
        "files.delete.recursive/n1",
        "files.delete.recursive/n2",
    ]
    assert dict(bundle.templates["files.delete.recursive"])["reason"] == "this deletes a whole folder ({path})"
    assert bundle.tools["builtin:exec"].offer is False


def test_layout_of_the_files_does_not_change_the_bytes(source: Path, tmp_path: Path) -> None:
    two_tools = TOOLS.split("- name: exec\n")
    other = write(
        tmp_path / "other",
        {
            "bundle.yaml": "# another order\n" + "\n".join(reversed(HEAD.splitlines())) + "\n",
            "rules/zz.yaml": RULES.replace('["/srv", "/home"]', '["/home", "/srv"]').replace("delete\n", "[delete]\n"),
            "tools/a.yaml": "- name: exec\n" + two_tools[2],
            "tools/b.yaml": "- name: exec\n" + two_tools[1],
            "suite/base.yaml": SUITE,
            "README.md": "For people.",
        },
    )
    assert compile_source(source) == compile_source(other)


def test_the_expiry_may_be_set_from_outside(source: Path) -> None:
    assert parse(compile_source(source, expires_at=2_000_000_000)).expires_at == 2_000_000_000


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2027-06-30", 1_814_313_600),
        ("1814313600", 1_814_313_600),
        ('"2027-06-30T00:00:00Z"', 1_814_313_600),
        ('"2027-06-30T02:00:00+02:00"', 1_814_313_600),
    ],
)
def test_an_expiry_is_a_date_an_instant_or_seconds(source: Path, text: str, at: int) -> None:
    write(source, {"bundle.yaml": HEAD.replace("2027-06-30", text)})
    assert compiled(source)["expires_at"] == at


@pytest.mark.parametrize("text", ["soon", "2027-13-01", '"2027-06-30T00:00:00"', "[1]", "1.5", "true", "2027-W01-1"])
def test_any_other_expiry_is_refused(source: Path, text: str) -> None:
    write(source, {"bundle.yaml": HEAD.replace("2027-06-30", text)})
    assert problems(source)[0].startswith("bundle.yaml:4: ")


def test_a_pattern_on_raw_text_forces_raise_only(source: Path) -> None:
    rule = "- {id: text.x, class: RED, when: {text: evil}, reason: x, match: [CASE], no_match: [CASE]}\n".replace(
        "CASE", "{tool: exec, params: {}}"
    )
    write(source, {"rules/text.yaml": rule})
    assert compiled(source)["rules"][1]["raise_only"] is True
    assert compiled(source)["rules"][1]["when"] == {"text": ["evil"]}
    write(source, {"rules/text.yaml": rule.replace("class: RED", "class: RED, raise_only: false")})
    assert "may only raise" in problems(source)[0]


def test_numbers_become_lists_too(source: Path) -> None:
    more = "effect: delete\n    count: {over: 10}\n    port: [443, 22]\n    level_below: 3"
    write(source, {"rules/files.yaml": RULES.replace("effect: delete", more)})
    when = compiled(source)["rules"][0]["when"]
    assert (when["count"], when["port"], when["level_below"]) == ({"over": [10]}, [22, 443], [3])


def test_sentences_may_stand_in_templates(source: Path) -> None:
    bare = "".join(
        line for line in RULES.splitlines(keepends=True) if not line.strip().startswith(("reason", "instead"))
    )
    write(source, {"rules/files.yaml": bare})
    assert "no template" in problems(source)[0]
    write(
        source, {"templates.yaml": "files.delete.recursive: {reason: elsewhere}\nsw.unlisted: {reason: unknown tool}\n"}
    )
    assert compiled(source)["templates"]["files.delete.recursive"] == {"reason": "elsewhere"}
    write(source, {"rules/files.yaml": RULES})
    assert problems(source) == ["templates.yaml:1: files.delete.recursive: the rule itself says its sentences already"]


def test_egress_rules_get_their_defaults(source: Path) -> None:
    route = (
        "- {id: a.b, caller: core, host: example.com, port: 443, method: POST, path: /v1, body: json, max_bytes: 10}\n"
    )
    write(source, {"egress.yaml": route})
    assert compiled(source)["egress"][0]["method"] == ["POST"]
    write(source, {"egress.yaml": "# first\n" + route.replace("/v1", "/v1/..")})
    assert problems(source) == ["egress.yaml:2: a.b: path: holds . or .."]


def test_an_adapter_belongs_to_a_tool(source: Path) -> None:
    write(source, {"adapters/mail.yaml": "tools:\n  mail.send: {url: x}\n"})
    assert problems(source) == [
        "adapters/mail.yaml:2: mail: tools.mail.send: there is no own tool of this name that runs in an adapter"
    ]
    tool = TOOLS.split("- name: exec\n")[2].replace("kind: builtin", "kind: own_tool").replace("gateway\n", "adapter\n")
    write(source, {"tools/mail.yaml": "- name: mail.send\n" + tool})
    assert compiled(source)["adapters"] == {"mail": {"tools": {"mail.send": {"url": "x"}}}}


# ── problems name their place ────────────────────────────────────────────────────────────────────────────────────

PLACED: list[tuple[str, str, str, int, str]] = [
    # file, what to replace, by what, line of the problem, its text (@: the rule's id)
    ("bundle.yaml", "version: 3", "version: 0", 2, "0 is less than the minimum of 1"),
    ("bundle.yaml", "version: 3", "versio: 3", 2, "unknown key versio"),
    ("bundle.yaml", "name: sample", "- x", 2, "not YAML: "),
    ("rules/files.yaml", "effect: delete", "effect: erase", 4, "@: when.effect[0]: "),
    ("rules/files.yaml", "effect: delete", "efect: delete", 3, "@: when: "),
    ("rules/files.yaml", "effect: delete", "effect: yes", 4, "'yes' means different things"),
    ("rules/files.yaml", "effect: delete", "effect: null", 4, "@: when.effect: "),
    ("rules/files.yaml", '"/home"], not', '"home"], not', 5, "@: when.path.under: not an"),
    ("rules/files.yaml", "CRITICAL_RED", "YELLOW", 8, "@: escalate[0].class: does not"),
    ("rules/files.yaml", "{path})", "{paht})", 9, "@: reason: there is no slot {paht}"),
    ("rules/files.yaml", "class: RED", "class: RED\n  evil: 1", 1, "@: Additional"),
    ("rules/files.yaml", "class: RED", "class: RED\n  examples: {}", 3, "@: examples are"),
    ("rules/files.yaml", "match:    [", "matches:  [", 1, "@: needs at least one example"),
    ("rules/files.yaml", "- id: files.delete.recursive", "- identity: x", 1, "must say its id"),
    ("rules/files.yaml", "{tool: exec, params: {command: \"rm -r /srv/app/old\"}}", "{tool: exec}",
     11, "@: \"params\" is a required"),
    ("tools/base.yaml", "maxLength: 1000", "minLength: 1", 11, "exec: params.properties.command.maxLength: every"),
    ("tools/base.yaml", "from: command", "from: comand", 13, "exec: effects[0].from: there is no parameter"),
    ("tools/base.yaml", "runs: gateway", "runs: core", 16, "exec: runs: builtin can't run there"),
    ("tools/base.yaml", "kind: builtin", "kind: own_tool", 14, "exec: the tool exec is listed twice"),
    ("suite/base.yaml", "class: GREEN", "class: LIME", 1, "exec.list: expect.class: "),
    ("suite/base.yaml", "- {id", "- 5\n- {id", 1, "must be a mapping"),
    ("suite/base.yaml", SUITE, "exec: 1", 1, "must be a list"),
    ("suite/base.yaml", SUITE, SUITE + SUITE, 2, "exec.list: exec.list stands in suite/base.yaml:1 already"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "old", "new", "line", "text"), PLACED, ids=range(len(PLACED)))
def test_a_problem_names_file_line_and_rule(source: Path, file: str, old: str, new: str, line: int, text: str) -> None:
    assert compile_source(source)
    assert old in FILES[file]
    write(source, {file: FILES[file].replace(old, new, 1)})
    found = problems(source)
    problem = f"{file}:{line}: {text.replace('@', 'files.delete.recursive')}"
    assert any(one.startswith(problem) for one in found), found
    assert all(one.isprintable() for one in found)


def test_all_problems_are_told_at_once(source: Path) -> None:
    write(source, {"rules/files.yaml": "a: *x", "tools/base.yaml": "a: yes", "bundle.yaml": HEAD + "name: x"})
    assert [line.partition(":")[0] for line in problems(source)] == [
        "bundle.yaml",
        "rules/files.yaml",
        "tools/base.yaml",
    ]


# ── the folder ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_folder_without_bundle_yaml_is_refused(source: Path) -> None:
    (source / "bundle.yaml").unlink()
    assert problems(source) == ["bundle.yaml:1: missing"]


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        ".hidden",
        "rules/x.yml",
        "rules/.x.yaml",
        "rules/X.yaml",
        "rules/deep/x.yaml",
        "more/x.yaml",
        "Egress.yaml",
    ],
)
def test_an_unknown_file_is_refused(source: Path, name: str) -> None:
    write(source, {name: "[]"})
    assert problems(source)


@pytest.mark.parametrize("name", ["rules/other.yaml", "egress.yaml"])
def test_an_empty_list_is_admitted_and_a_link_to_one_is_not(source: Path, tmp_path: Path, name: str) -> None:
    write(source, {name: "[]"})
    assert compile_source(source)
    (source / name).rename(tmp_path / "real.yaml")
    (source / name).symlink_to(tmp_path / "real.yaml")
    assert problems(source)


def test_links_pipes_and_folders_in_place_of_files_are_refused(source: Path, tmp_path: Path) -> None:
    (source / "rules").rename(tmp_path / "rules")
    (source / "rules").symlink_to(tmp_path / "rules")
    assert problems(source) == ["rules:1: not a part of a bundle's source"]
    (source / "rules").unlink()
    for make in (os.mkfifo, os.mkdir):
        make(source / "egress.yaml")
        assert problems(source)
        (source / "egress.yaml").unlink() if make is os.mkfifo else (source / "egress.yaml").rmdir()


def test_the_number_of_files_is_bounded(source: Path) -> None:
    write(source, {f"suite/s{index}.yaml": "[]" for index in range(MAX_FILES - len(FILES))})
    assert compile_source(source)
    write(source, {"suite/one-more.yaml": "[]"})
    assert "more than" in problems(source)[0]


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    assert problems(tmp_path / "nothing")


_lines = [*RULES.splitlines(), *TOOLS.splitlines(), *SUITE.splitlines(), *HEAD.splitlines(), "- x", "  y: [1", "null"]
_scraps = st.lists(st.sampled_from(_lines), max_size=25).map("\n".join)


@settings(max_examples=150)
@given(_scraps, st.sampled_from(["bundle.yaml", "rules/a.yaml", "tools/a.yaml", "suite/a.yaml", "templates.yaml",
                                 "egress.yaml", "adapters/a.yaml", "prices.yaml", "redaction.yaml"]))  # fmt: skip
def test_whatever_is_written_gives_a_bundle_or_problems(
    tmp_path_factory: pytest.TempPathFactory, text: str, name: str
) -> None:
    folder = write(tmp_path_factory.mktemp("source", numbered=True), {**FILES, name: text})
    try:
        assert parse(compile_source(folder))
    except SourceError as exc:
        found = exc.problems
    else:
        found = ()
    assert all(problem.line >= 1 and str(problem).isprintable() for problem in found)
