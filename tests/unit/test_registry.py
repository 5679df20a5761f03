"""What may be loaded: each refusal beside the same plugin without its cause. Distributions are real folders."""

import importlib
import itertools
import json
import py_compile
import sys
import sysconfig
import textwrap
import types

import pytest

from safety_wrapper import dispatch, hookspecs, registry
from safety_wrapper.errors import (
    AsyncImplError,
    DuplicateOwnerError,
    NotAllowListedError,
    PluginLoadError,
    UnknownHookError,
    WrapperRefusedError,
)
from safety_wrapper.hookspecs import hookimpl
from safety_wrapper.model import Classification, SafetyClass
from safety_wrapper.registry import AllowedPlugin, content_sha256, find_installed, load, vet
from safety_wrapper.testing import make_call, make_policy
from safety_wrapper.testing.simulators import Runs, classifies

NUMBERS = itertools.count()
GOOD = """
    from safety_wrapper.hookspecs import hookimpl
    from safety_wrapper.model import Classification, SafetyClass

    class Plugin:
        def __init__(self, settings):
            self.rule = settings.get("rule", "probe.rule")

        @hookimpl
        def classify_tool_call(self, call, policy):
            return Classification(SafetyClass.RED, rules=(self.rule,))

    def plugin(settings):
        return Plugin(settings)
"""


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder for installed distributions: the only one that is searched, besides the standard library."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", [str(folder), sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")])
    monkeypatch.setattr(sys, "pycache_prefix", sys.pycache_prefix)
    monkeypatch.setattr(sys, "dont_write_bytecode", sys.dont_write_bytecode)
    importlib.invalidate_caches()
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        del sys.modules[name]
    importlib.invalidate_caches()


def install(site, body=GOOD, *, name="probe", version="1.0", editable=False, elsewhere=None):
    """Write a distribution; the name of its package."""
    package = f"sw_probe_{next(NUMBERS)}"
    folder = (elsewhere or site) / package
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(textwrap.dedent(body))
    info = site / f"{package}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[safety_wrapper]\n{name} = {package}:plugin\n")
    if editable:
        (info / "direct_url.json").write_text(json.dumps({"url": "file:///x", "dir_info": {"editable": True}}))
    importlib.invalidate_caches()
    return package


def allowed(package, *, name="probe", version="1.0", sha256=None, **settings):
    return AllowedPlugin(name, version, sha256 or content_sha256(package), settings)


def classify(plan):
    return dispatch.classify(plan, make_call(), make_policy())


# ── the allow list ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_listed_plugin_is_loaded_with_its_settings(site):
    plan = load([allowed(install(site), rule="mine.rule")])
    assert classify(plan).rules == ("mine.rule",)
    assert len(plan.digest) == 64


def test_no_plugin_at_all_is_a_plan_that_blocks(site):
    plan = load([])
    assert plan.classifiers == ()
    assert all(plan.hooks[hook] == () for hook in hookspecs.HOOKS)


def test_a_plugin_that_is_installed_but_not_listed_is_refused_unrun(site):
    install(site, "raise SystemExit('it ran')")
    with pytest.raises(NotAllowListedError, match="not on the allow list"):
        load([])


def test_a_plugin_that_is_listed_but_not_installed_is_refused(site):
    with pytest.raises(NotAllowListedError, match="not installed"):
        load([AllowedPlugin("probe", "1.0", "0" * 64)])


@pytest.mark.parametrize("change", [{"version": "1.1"}, {"sha256": "0" * 64}, {"name": "other"}])
def test_another_version_content_or_name_is_refused(site, change):
    package = install(site)
    with pytest.raises(NotAllowListedError):
        load([allowed(package, **change)])
    assert load([allowed(package)])


@pytest.mark.parametrize(
    "where", ["__init__.py", "helper.py", "data.json", "sub/mod.py", "extension.so", "sourceless.pyc"]
)
def test_altered_content_is_refused_before_it_runs(site, where):
    package = install(site)
    entry = allowed(package)
    path = site / package / where
    path.parent.mkdir(exist_ok=True)
    path.write_text("raise SystemExit('it ran')")
    with pytest.raises(NotAllowListedError, match="differs"):
        load([entry])
    assert package not in sys.modules


def test_no_code_runs_before_every_plugin_is_checked(site):
    first = install(site, "import sys\nsys.modules['sw_probe_trace'] = sys\n" + textwrap.dedent(GOOD), name="a")
    second = install(site, name="b")
    with pytest.raises(NotAllowListedError):
        load([allowed(first, name="a"), allowed(second, name="b", version="9")])
    assert "sw_probe_trace" not in sys.modules
    load([allowed(first, name="a"), allowed(second, name="b")])
    assert "sw_probe_trace" in sys.modules


def test_an_editable_install_needs_dev(site):
    package = install(site, editable=True)
    with pytest.raises(NotAllowListedError, match="editable"):
        load([allowed(package)])
    assert load([allowed(package)], dev=True)


def test_a_package_that_lies_elsewhere_than_its_distribution_is_not_the_installed_one(site, tmp_path, monkeypatch):
    package = install(site, elsewhere=tmp_path / "checkout")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "checkout"), *sys.path])
    importlib.invalidate_caches()
    with pytest.raises(NotAllowListedError, match="editable"):
        load([allowed(package)])
    assert load([allowed(package)], dev=True)


def test_two_plugins_of_one_name_are_refused(site):
    one, other = install(site), install(site)
    for package in (one, other):
        with pytest.raises(DuplicateOwnerError, match="one name"):
            load([allowed(package)])


def test_a_plugin_listed_twice_is_refused(site):
    package = install(site)
    with pytest.raises(DuplicateOwnerError, match="listed twice"):
        load([allowed(package), allowed(package)])


def test_installed_plugins_are_found_without_running_them(site):
    package = install(site, "raise SystemExit('it ran')", name="b", version="2.0")
    install(site, name="a")
    found = find_installed()
    assert [(p.name, p.version, p.editable) for p in found] == [("a", "1.0", False), ("b", "2.0", False)]
    assert found[1].sha256 == content_sha256(package)


# ── what a package's content is ──────────────────────────────────────────────────────────────────────────────────


def test_content_is_names_and_bytes_and_nothing_else(site):
    package = install(site)
    before = content_sha256(package)
    (site / package / "__pycache__").mkdir()
    (site / package / "__pycache__" / "__init__.cpython-313.pyc").write_bytes(b"cache")
    assert content_sha256(package) == before
    (site / package / "a.py").write_text("x")
    one = content_sha256(package)
    (site / package / "a.py").rename(site / package / "b.py")
    assert len({before, one, content_sha256(package)}) == 3


def symlink_to_file(folder, outside):
    (outside / "evil.py").write_text("")
    (folder / "evil.py").symlink_to(outside / "evil.py")


def symlink_to_folder(folder, outside):
    (outside / "__init__.py").write_text("")
    (folder / "evil").symlink_to(outside, target_is_directory=True)


def broken_symlink(folder, _outside):
    (folder / "evil.py").symlink_to("/nonexistent/evil.py")


def source_in_the_cache(folder, _outside):
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "evil.py").write_text("")


@pytest.mark.parametrize("spoil", [symlink_to_file, symlink_to_folder, broken_symlink, source_in_the_cache])
def test_what_could_be_imported_without_being_hashed_is_refused(site, tmp_path, spoil):
    package = install(site)
    entry = allowed(package)
    outside = tmp_path / "outside"
    outside.mkdir()
    assert load([entry])
    spoil(site / package, outside)
    with pytest.raises(PluginLoadError, match=r"symbolic link|cache"):
        load([entry])


def test_a_package_without_sources_of_its_own_is_refused(site):
    package = install(site)
    (site / package / "__init__.py").unlink()
    importlib.invalidate_caches()
    with pytest.raises(PluginLoadError, match="not one folder"):
        content_sha256(package)
    (site / "sw_probe_module.py").write_text("")
    importlib.invalidate_caches()
    for name in ("sw_probe_module", "sw_probe_away", ""):
        with pytest.raises(PluginLoadError):
            content_sha256(name)


def test_stale_bytecode_beside_the_sources_is_not_executed(site):
    """The cache claims to need no check, so an interpreter that looked at it would run it."""
    package = install(site)
    source = site / package / "__init__.py"
    original = source.read_text()
    source.write_text(original.replace("SafetyClass.RED", "SafetyClass.GREEN"))
    cached = source.parent / "__pycache__" / f"__init__.{sys.implementation.cache_tag}.pyc"
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(source), cfile=str(cached), invalidation_mode=mode, doraise=True)
    source.write_text(original)
    # the interpreter's own habit is to believe it
    sys.pycache_prefix = None
    module = importlib.import_module(package)
    assert module.plugin({}).classify_tool_call(None, None).safety_class is SafetyClass.GREEN
    del sys.modules[package]
    assert classify(load([allowed(package)])).safety_class is SafetyClass.RED


# ── construction ─────────────────────────────────────────────────────────────────────────────────────────────────

BROKEN = {
    "factory raises": "def plugin(settings):\n    raise RuntimeError('hunter2')",
    "factory exits": "def plugin(settings):\n    raise SystemExit(3)",
    "import raises": "raise RuntimeError('hunter2')",
    "import exits": "raise SystemExit(3)",
    "syntax": "def plugin(:",
    "no such object": "x = 1",
    "not callable": "plugin = 7",
    "wrong arguments": "def plugin():\n    pass",
    "nothing comes back": "def plugin(settings):\n    return None",
    "a plugin without a hook": "def plugin(settings):\n    return object()",
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN.keys())
def test_a_plugin_that_can_not_be_made_is_refused_without_its_words(site, body):
    package = install(site, body)
    with pytest.raises(PluginLoadError) as caught:
        load([allowed(package)])
    assert "hunter2" not in caught.value.message
    assert "probe" in caught.value.message


def test_settings_are_a_copy(site):
    package = install(
        site, GOOD + "\n    def plugin(settings):\n        settings['rule'] = 'x'\n        return Plugin(settings)\n"
    )
    settings = {"rule": "mine"}
    load([AllowedPlugin("probe", "1.0", content_sha256(package), settings)])
    assert settings == {"rule": "mine"}


# ── the contract ─────────────────────────────────────────────────────────────────────────────────────────────────


def plugin_with(name, function, **options):
    """A plugin with one hook; the decorator marks a copy, since it writes on the function itself."""
    copied = types.FunctionType(function.__code__, function.__globals__, name, None, function.__closure__)
    return type("Probe", (), {name: hookimpl(**options)(copied)})()


def sync(self, call, policy):
    return Classification(SafetyClass.RED)


async def coroutine(self, call, policy):
    return Classification(SafetyClass.GREEN)


def generator(self, call, policy):
    yield Classification(SafetyClass.GREEN)


async def async_generator(self, call, policy):
    yield Classification(SafetyClass.GREEN)


def wrapping(self, call, policy):
    return (yield)


def wrong_argument(self, call, secrets):
    return None


REFUSED = {
    "unknown hook": (plugin_with("classify_tool_cal", sync), UnknownHookError),
    "unknown hook by specname": (plugin_with("x", sync, specname="no_such_hook"), UnknownHookError),
    "unknown optional hook": (plugin_with("classify_tool_cal", sync, optionalhook=True), UnknownHookError),
    "optional hook": (plugin_with("classify_tool_call", sync, optionalhook=True), WrapperRefusedError),
    "new wrapper": (plugin_with("classify_tool_call", wrapping, wrapper=True), WrapperRefusedError),
    "old wrapper": (plugin_with("classify_tool_call", wrapping, hookwrapper=True), WrapperRefusedError),
    "wrapper of an observer": (plugin_with("gateway_start", lambda self: (yield), wrapper=True), WrapperRefusedError),
    "async where sync is needed": (plugin_with("classify_tool_call", coroutine), AsyncImplError),
    "sync where async is needed": (plugin_with("execute_tool_call", lambda self, call: None), AsyncImplError),
    "generator": (plugin_with("classify_tool_call", generator), AsyncImplError),
    "async generator": (plugin_with("classify_tool_call", async_generator), AsyncImplError),
    "wrong argument": (plugin_with("classify_tool_call", wrong_argument), PluginLoadError),
    "too many arguments": (plugin_with("check_health", sync), PluginLoadError),
    "no hook": (object(), UnknownHookError),
}


@pytest.mark.parametrize(("plugin", "error"), REFUSED.values(), ids=REFUSED.keys())
def test_what_pluggy_lets_pass_and_we_do_not(plugin, error):
    with pytest.raises(error):
        vet({"probe": plugin})
    with pytest.raises(error):  # nor beside one that is right
        vet({"good": classifies(SafetyClass.GREEN), "probe": plugin})


ADMITTED = {
    "all arguments": plugin_with("classify_tool_call", sync),
    "fewer arguments": plugin_with("classify_tool_call", lambda self, call: None),
    "no arguments": plugin_with("classify_tool_call", lambda self: None),
    "another name": plugin_with("mine", sync, specname="classify_tool_call"),
    "tried first": plugin_with("classify_tool_call", sync, tryfirst=True),
    "tried last": plugin_with("classify_tool_call", sync, trylast=True),
}


@pytest.mark.parametrize("plugin", ADMITTED.values(), ids=ADMITTED.keys())
def test_their_twins_are_admitted(plugin):
    assert len(vet({"probe": plugin}).classifiers) == 1


def test_a_plugin_whose_attributes_raise_gets_no_words_out():
    class Trap:
        def __get__(self, owner, kind):
            raise RuntimeError("hunter2")

    plugin = plugin_with("classify_tool_call", sync)
    type(plugin).trap = Trap()
    try:
        vet({"probe": plugin})  # a pluggy that does not look at such attributes
    except PluginLoadError as exc:
        assert "hunter2" not in exc.message  # noqa: PT017 - one that does


def test_one_object_under_two_names_is_refused():
    plugin = classifies(SafetyClass.RED)
    with pytest.raises(PluginLoadError):
        vet({"a": plugin, "b": plugin})


def test_a_plugin_gets_no_hand_on_the_plan():
    plan = vet({"probe": classifies(SafetyClass.RED)})
    with pytest.raises(TypeError):
        plan.hooks["classify_tool_call"] = ()
    with pytest.raises(TypeError):
        plan.tool_owners["x"] = "y"
    with pytest.raises(AttributeError):
        plan.classifiers = ()


# ── owners ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_tool_has_one_owner():
    with pytest.raises(DuplicateOwnerError, match=r"http\.request"):
        vet({"a": Runs("http.request"), "b": Runs("mail.send", "http.request")})
    plan = vet({"a": Runs("http.request"), "b": Runs("mail.send")})
    assert dict(plan.tool_owners) == {"http.request": "a", "mail.send": "b"}


def raising(self):
    raise RuntimeError("hunter2")


ODD_TOOLS = {
    "text": lambda self: "http.request",
    "nothing": lambda self: None,
    "numbers": lambda self: [7],
    "an offered name": lambda self: ["sw_http__request"],
    "not dotted": lambda self: ["HTTP"],
    "an iterator": lambda self: iter(["http.request"]),
    "an exception": raising,
}


@pytest.mark.parametrize("tools", ODD_TOOLS.values(), ids=ODD_TOOLS.keys())
def test_tools_are_a_list_of_dotted_names(tools):
    plugin = type("Probe", (Runs,), {"register_tools": hookimpl(tools)})("http.request")
    with pytest.raises(PluginLoadError) as caught:
        vet({"probe": plugin})
    assert "hunter2" not in caught.value.message


def test_who_registers_a_tool_must_run_it():
    with pytest.raises(PluginLoadError, match="execute_tool_call"):
        vet({"probe": plugin_with("register_tools", lambda self: ["http.request"])})
    assert vet({"probe": plugin_with("register_tools", lambda self: [])})


# ── the plan ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_core_loads_no_hook_of_the_vault():
    plugin = plugin_with("release_secret", lambda self, ticket, slot: b"value")
    assert vet({"probe": plugin}).hooks["release_secret"] == ()
    assert len(vet({"probe": plugin}, process="vault").hooks["release_secret"]) == 1


def test_the_digest_follows_names_contents_and_hooks():
    plugins = {"a": classifies(SafetyClass.RED)}
    base = vet(plugins, {"a": "1" * 64}).digest
    assert vet({"a": classifies(SafetyClass.GREEN)}, {"a": "1" * 64}).digest == base
    assert vet(plugins, {"a": "2" * 64}).digest != base
    assert vet({"b": classifies(SafetyClass.RED)}, {"b": "1" * 64}).digest != base
    assert vet({"a": Runs("x")}, {"a": "1" * 64}).digest != base
    assert registry.vet({}).digest != base
