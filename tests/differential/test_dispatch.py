"""Every hook through pluggy and through the frozen plan, with generated sets of plugins: the same answers."""

import asyncio
import inspect

import pluggy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generators import classifications, examples
from safety_wrapper import hookspecs
from safety_wrapper.dispatch import combine
from safety_wrapper.hookspecs import CONTRACTS, HOOKS, hookimpl
from safety_wrapper.registry import vet

ORDERS = [{}, {"tryfirst": True}, {"trylast": True}]


def arguments_of(hook):
    return list(inspect.signature(getattr(hookspecs, hook)).parameters)


def make(hook, number, spec):
    """A plugin with one implementation of ``hook``: some of its arguments, an answer or none, an order."""
    chosen, answers, order = spec
    taken = [name for name, wanted in zip(arguments_of(hook), chosen, strict=False) if wanted]
    silent = "[]" if hook == "register_tools" else "None"
    answer = f"['probe.tool{number}']" if hook == "register_tools" else f"({number}, {', '.join([*taken, ''])})"
    word = "async def" if CONTRACTS[hook].is_async else "def"
    scope = {}
    exec(f"{word} {hook}(self, {', '.join(taken)}): return {answer if answers else silent}", scope)
    members = {hook: hookimpl(**order)(scope[hook])}
    if hook == "register_tools":
        members["execute_tool_call"] = hookimpl(runs)
    return type("Plugin", (), members)()


async def runs(self):
    return None


async def settled(answers):
    return [await answer if inspect.isawaitable(answer) else answer for answer in answers]


specs = st.lists(
    st.tuples(st.lists(st.booleans(), min_size=6, max_size=6), st.booleans(), st.sampled_from(ORDERS)), max_size=5
)


@pytest.mark.parametrize("hook", HOOKS)
@settings(max_examples=examples(25))
@given(specs)
def test_the_plan_answers_as_pluggy_does(hook, chosen):
    plugins = {f"p{number}": make(hook, number, spec) for number, spec in enumerate(chosen)}
    plan = vet(plugins, process="vault" if hook in hookspecs.VAULT_HOOKS else "core")
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    for name, plugin in plugins.items():
        manager.register(plugin, name=name)
    given_arguments = {name: f"the {name}" for name in arguments_of(hook)}

    by_pluggy = getattr(manager.hook, hook)(**given_arguments)
    by_plan = [
        answer
        for impl in plan.hooks[hook]
        if (answer := impl.function(**{name: given_arguments[name] for name in impl.argnames})) is not None
    ]
    by_pluggy, by_plan = asyncio.run(settled(by_pluggy)), asyncio.run(settled(by_plan))
    assert by_plan == by_pluggy
    if hook == "classify_tool_call":
        positional = [classifier(*given_arguments.values()) for classifier in plan.classifiers]
        assert [answer for answer in positional if answer is not None] == by_plan


several = st.lists(classifications, min_size=1, max_size=5)


@settings(max_examples=examples(150))
@given(several, st.randoms(use_true_random=False))
def test_combining_is_independent_of_order(answers, random):
    shuffled = answers[:]
    random.shuffle(shuffled)
    assert combine(shuffled) == combine(answers)


@settings(max_examples=examples(150))
@given(several)
def test_combining_is_idempotent(answers):
    once = combine(answers)
    assert combine([once]) == once
    assert combine([once, once]) == once


@settings(max_examples=examples(150))
@given(several, several)
def test_combining_in_steps_is_combining_at_once_but_for_the_words(one, other):
    steps, at_once = combine([combine(one), combine(other)]), combine([*one, *other])
    for name in ("safety_class", "external", "opaque", "effects", "rules"):
        assert getattr(steps, name) == getattr(at_once, name)


@settings(max_examples=examples(150))
@given(several, classifications)
def test_combining_is_monotone(answers, more):
    before, after = combine(answers), combine([*answers, more])
    assert after.safety_class >= before.safety_class
    assert after.external >= before.external
    assert after.opaque >= before.opaque
    assert set(after.effects) >= set(before.effects)
    assert set(after.rules) >= set(before.rules)
