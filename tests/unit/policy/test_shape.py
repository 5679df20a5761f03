"""What a rule, a tool, a template, a case and a route must say. Each refusal changes one thing of a sound bundle."""

from __future__ import annotations

from typing import Any

import pytest

from safety_wrapper.model import EFFECT_KINDS, RESOURCES, SafetyClass, ToolKind
from safety_wrapper.policy import parse
from safety_wrapper.policy.faults import MAX_FAULTS, BundleShapeError
from safety_wrapper.policy.shape import check_shape
from unit.policy.samples import RULE, bundle_value, compiled

GONE = object()

#: Path into the sample → value that must not be there. The twin of all of them is the sample itself.
REFUSED: list[tuple[str, Any]] = [
    ("format", 2),
    ("format", "1"),
    ("evil", 1),
    ("name", "Base"),
    ("name", "x" * 64),
    ("version", 0),
    ("version", -1),
    ("version", 1.5),
    ("version", True),
    ("min_wrapper", "1"),
    ("min_wrapper", "0.1.0\n"),
    ("min_wrapper", "00.1.0"),
    ("expires_at", "2027-01-01"),
    ("expires_at", 0),
    ("redaction", [{}]),
    ("prices", {"a": 1}),
    ("tools", []),
    # rules
    ("rules.0.evil", 1),
    ("rules.0.when", {}),
    ("rules.0.when", GONE),
    ("rules.0.raise_only", GONE),
    ("rules.0.class", "red"),
    ("rules.0.class", 3),
    ("rules.0.external", False),
    ("rules.0.id", "sw.files"),
    ("rules.0.id", "sw"),
    ("rules.0.id", "Files"),
    ("rules.0.id", "files..x"),
    ("rules.0.when.evil", ["x"]),
    ("rules.0.when.effect", "delete"),
    ("rules.0.when.effect", []),
    ("rules.0.when.effect", ["erase"]),
    ("rules.0.when.effect", ["delete", "delete"]),
    ("rules.0.when.effect", ["write", "delete"]),
    ("rules.0.when.effect", {"prefix": ["delete"]}),
    ("rules.0.when.kind", ["owntool"]),
    ("rules.0.when.flags", {}),
    ("rules.0.when.flags", {"under": ["/"]}),
    ("rules.0.when.flags", {"any": ["b", "a"]}),
    ("rules.0.when.flags", {"any": []}),
    ("rules.0.when.flags", {"any": "a"}),
    ("rules.0.when.path", {"under": ["srv"]}),
    ("rules.0.when.path", {"under": ["/srv/"]}),
    ("rules.0.when.path", {"under": ["/srv/../etc"]}),
    ("rules.0.when.path", {"under": ["/srv//x"]}),
    ("rules.0.when.path", {"domain": ["/srv"]}),
    ("rules.0.when.port", ["443"]),
    ("rules.0.when.port", [-1]),
    ("rules.0.when.count", {"over": [1, 2]}),
    ("rules.0.when.count", {"over": 1}),
    ("rules.0.when.level_below", [4]),
    ("rules.0.when.level_below", [2, 3]),
    ("rules.0.when.text", ["x"]),  # raise_only is false
    ("rules.0.when.text", {"any": ["x"]}),
    ("rules.0.escalate.0.class", "RED"),
    ("rules.0.escalate.0.class", "GREEN"),
    ("rules.0.escalate.0.when", {"path": {"is": ["b"]}}),
    ("rules.0.escalate.0.evil", 1),
    ("rules.0.examples.match", []),
    ("rules.0.examples.no_match", []),
    ("rules.0.examples.match", ["files.delete/m2"]),
    ("rules.0.examples.match", ["files.delete/m1", "files.delete/m2"]),
    ("rules.0.examples.no_match", ["files.delete/m1"]),
    ("rules.0.examples.evil", []),
    # templates
    ("templates", {}),
    ("templates.files\\.delete.reason", GONE),
    ("templates.files\\.delete.evil", "x"),
    ("templates.files\\.delete.reason", "a {secret}"),
    ("templates.files\\.delete.reason", "a {path"),
    ("templates.files\\.delete.reason", "a }"),
    ("templates.files\\.delete.reason", "a {{path}}"),
    ("templates.files\\.delete.reason", "two\nlines"),
    ("templates.files\\.delete.reason", "turned \u202e round"),
    ("templates.files\\.delete.reason", " blank"),
    ("templates.files\\.delete.reason", ""),
    ("templates.files\\.delete.reason", "x" * 241),
    ("templates.no\\.such", {"reason": "x"}),
    # suite
    ("suite.0.evil", 1),
    ("suite.0.expect", {"class": "RED"}),
    ("suite.0.id", "files.delete/m9"),
    ("suite.0.id", "files.delete/x1"),
    ("suite.0.params", []),
    ("suite.0.kind", "shell"),
    ("suite.0.tool", ""),
    ("suite.2.expect", GONE),
    ("suite.2.expect", {}),
    ("suite.2.expect.class", "PINK"),
    ("suite.2.expect.outcome", "ask"),
    ("suite.2.expect.rules", ["sw.nothing"]),
    ("suite.2.expect.evil", 1),
    ("suite.2.context.evil", 1),
    ("suite.2.context.cwd", "srv"),
    ("suite.2.context.level", 0),
    ("suite.2.context.gate", "open"),
    ("suite.2.id", "a.first"),
    ("suite.2.id", "files.delete/n1"),
    # tools
    ("tools.exec.evil", 1),
    ("tools.exec.caps", GONE),
    ("tools.exec.name", "exec2"),
    ("tools.exec.name", "e__c"),
    ("tools.exec.kind", "builtin"),
    ("tools.exec.runs", "gateway"),
    ("tools.exec.base.class", "PURPLE"),
    ("tools.exec.base.external", 1),
    ("tools.exec.summary", "two\nlines"),
    ("tools.exec.summary", ""),
    ("tools.exec.effects.0.kind", "erase"),
    ("tools.exec.effects.0.resource", "soul"),
    ("tools.exec.effects.0.from", ["missing"]),
    ("tools.exec.sinks", {"missing": "text"}),
    ("tools.exec.sinks", {"command": "telepathy"}),
    ("tools.exec.slots", {"db_auth": {"sink": "mail"}}),
    ("tools.exec.slots", {}),  # the program's environment names one
    ("tools.exec.result.default", "trusted"),
    ("tools.exec.result.fields", {"id": "gold"}),
    ("tools.exec.caps", {"calls_per_year": 1}),
    ("tools.exec.caps", {"calls_per_day": -1}),
    ("tools.exec.program.path", "psql"),
    ("tools.exec.program.path", "/bin/x y"),
    ("tools.exec.program.argv", ["-c {command}"]),
    ("tools.exec.program.argv", ["{missing}"]),
    ("tools.exec.program.argv", ["{command"]),
    ("tools.exec.program.env", {"PATH": {"slot": "missing"}}),
    ("tools.exec.program.env", {"pgpass": {"slot": "db_auth"}}),
    ("tools.builtin:exec.offer", True),
    ("tools.builtin:exec.runs", "runner"),
    ("tools.mail\\.send.program", {"path": "/x", "argv": [], "env": {}}),
    # adapters
    ("adapters.mail.tools", {}),
    ("adapters.mail.evil", {}),
    ("adapters.mail.tools.exec", {}),
    ("adapters.mail.tools.missing", {}),
    ("adapters.again", {"tools": {"mail.send": {}}}),
    # egress
    ("egress.0.evil", 1),
    ("egress.0.host", "API.example.com"),
    ("egress.0.host", "*.example.com"),
    ("egress.0.host", "example.com."),
    ("egress.0.port", 0),
    ("egress.0.method", ["POST", "GET"]),
    ("egress.0.method", ["TRACE"]),
    ("egress.0.path", "v1"),
    ("egress.0.path", "/v1/../x"),
    ("egress.0.path", "/v1/{Name}"),
    ("egress.0.path", "/v1/*"),
    ("egress.0.query", ["b", "a"]),
    ("egress.0.slot.form", "Bearer"),
    ("egress.0.slot.in", "body"),
    ("egress.0.caller", "vault"),
    ("egress.0.address", "localhost"),
    ("egress.0.max_bytes", -1),
]  # fmt: skip


def put(value: dict[str, Any], path: str, new: Any) -> None:
    """Set, or take away, what stands at a dotted path (``\\.`` is a dot in a key)."""
    *steps, last = [step.replace("\0", ".") for step in path.replace("\\.", "\0").split(".")]
    holder: Any = value
    for step in steps:
        holder = holder[int(step) if isinstance(holder, list) else step]
    if new is GONE:
        del holder[last]
    else:
        holder[int(last) if isinstance(holder, list) else last] = new


def test_the_sample_is_sound() -> None:
    check_shape(bundle_value())


@pytest.mark.parametrize(("path", "new"), REFUSED, ids=[f"{n}-{path}" for n, (path, _) in enumerate(REFUSED)])
def test_one_wrong_thing_is_refused_and_placed(path: str, new: Any) -> None:
    value = bundle_value()
    put(value, path, new)
    with pytest.raises(BundleShapeError) as caught:
        check_shape(value)
    assert caught.value.faults
    assert caught.value.message.isprintable()


#: What must pass, each beside a refused neighbour above.
ADMITTED: list[tuple[str, Any]] = [
    ("rules.0.external", True),
    ("rules.0.raise_only", True),
    ("rules.0.when", {"effect": {"none": ["read"]}, "kind": ["builtin", "own_tool"], "tool": {"prefix": ["docker."]}}),
    ("rules.0.when", {"argv": {"all": ["a", "b"]}, "sql": {"any": ["drop"]}, "channel": ["mail"], "method": ["POST"]}),
    ("rules.0.when", {"path": {"under": ["/"], "not_under": ["/tmp"], "prefix": ["/dev/sd"]}}),
    ("rules.0.when", {"path": {"under": ["/home/*/.ssh"]}}),
    ("rules.0.when", {"host": {"domain": ["example.com"]}, "recipient": {"none": ["a@example.com"]}}),
    ("rules.0.when", {"port": [22, 443], "count": {"over": [10]}, "amount": {"over": [99.5]}, "level_below": [3]}),
    ("rules.0.escalate", []),
    ("rules.0.escalate", [{"class": "RED", "external": True, "when": {"host": ["example.com"]}}]),
    ("suite.2.expect", {"class": "GREEN"}),
    ("suite.2.context", {}),
    ("tools.exec.effects.0.from", []),
    ("tools.exec.sinks", {"command": "id/order"}),
    ("egress.0.slot", None),
    ("egress.0.address", "10.0.0.7"),
    ("egress.0.address", "fd00::1"),
    ("egress.0.path", "/"),
    ("adapters", {}),
]


@pytest.mark.parametrize(("path", "new"), ADMITTED, ids=[f"{n}-{path}" for n, (path, _) in enumerate(ADMITTED)])
def test_what_a_bundle_may_say(path: str, new: Any) -> None:
    assert parse(compiled(lambda value: put(value, path, new)))


def test_a_raw_text_pattern_passes_where_the_rule_may_only_raise() -> None:
    def change(value: dict[str, Any]) -> None:
        value["rules"][0] |= {"when": {"text": ["a+"]}, "raise_only": True}

    assert parse(compiled(change))


def test_a_rule_that_only_raises_is_not_green() -> None:
    value = bundle_value()
    value["rules"][0] |= {"class": "GREEN", "raise_only": True}
    with pytest.raises(BundleShapeError, match="can't be GREEN"):
        check_shape(value)
    value["rules"][0]["raise_only"] = False
    check_shape(value)


@pytest.mark.parametrize("section", ["rules", "suite", "egress"])
def test_ids_are_ascending_and_unique(section: str) -> None:
    value = bundle_value()
    value[section] = [*value[section], value[section][-1]]
    with pytest.raises(BundleShapeError, match="ascending"):
        check_shape(value)


def test_the_order_of_rules_is_part_of_the_form() -> None:
    def second(value: dict[str, Any], *, first: bool) -> None:
        rule = {**RULE, "id": "a.rule", "examples": {"match": ["a.rule/m1"], "no_match": ["a.rule/n1"]}}
        value["rules"].insert(0 if first else 1, rule)
        value["templates"]["a.rule"] = {"reason": "x"}
        cases = [{"id": f"a.rule/{which}", "tool": "exec", "params": {}} for which in ("m1", "n1")]
        value["suite"] = [*cases, *value["suite"]]

    assert len(parse(compiled(lambda value: second(value, first=True))).rules) == 2
    with pytest.raises(BundleShapeError, match="ascending"):
        parse(compiled(lambda value: second(value, first=False)))


def test_an_example_that_no_rule_names_is_refused() -> None:
    value = bundle_value()
    value["suite"].insert(1, {**value["suite"][0], "id": "files.delete/m2"})
    with pytest.raises(BundleShapeError, match="no rule names"):
        check_shape(value)
    value["rules"][0]["examples"]["match"].append("files.delete/m2")
    check_shape(value)


def test_faults_are_bounded_and_name_their_place() -> None:
    value = bundle_value()
    value["rules"] = [{**RULE, "evil": index} for index in range(100)]
    with pytest.raises(BundleShapeError) as caught:
        check_shape(value)
    assert len(caught.value.faults) == MAX_FAULTS
    assert caught.value.faults[0].place[:2] == ("rules", 0)
    assert str(caught.value.faults[0]).startswith("rules[0]: ")


def test_the_schema_knows_the_model_s_words() -> None:
    """The schema repeats words of the model; a test holds them together."""
    for word in EFFECT_KINDS:
        check_shape(_with("rules.0.when.effect", [word]))
        check_shape(_with("tools.exec.effects.0.kind", word))
    for word in RESOURCES:
        check_shape(_with("tools.exec.effects.0.resource", word))
    for kind in ToolKind:
        check_shape(_with("rules.0.when.kind", [kind.value]))
    for level in SafetyClass:
        check_shape(_with("tools.exec.base.class", level.name))


def _with(path: str, new: Any) -> dict[str, Any]:
    value = bundle_value()
    put(value, path, new)
    return value
