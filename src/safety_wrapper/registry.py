"""Find, vet and load plugins. A plugin is trusted code in its process, so what gets in is a list of exact contents.

pluggy does discovery of implementations and validation of their arguments; everything that pluggy lets pass and
that could widen an answer (docs/adr/0001) is refused here, at load.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import inspect
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pluggy

from safety_wrapper import hookspecs
from safety_wrapper.dispatch import Implementation, Plan, freeze
from safety_wrapper.errors import (
    AsyncImplError,
    DuplicateOwnerError,
    NotAllowListedError,
    PluginLoadError,
    UnknownHookError,
    WrapperRefusedError,
)
from safety_wrapper.naming import is_dotted

GROUP: Final = "safety_wrapper"


@dataclass(frozen=True, slots=True)
class AllowedPlugin:
    """One line of the allow list. ``sha256`` as :func:`content_sha256` computes it."""

    name: str
    version: str
    sha256: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InstalledPlugin:
    """A distribution that offers a plugin, as found, before any of its code ran."""

    name: str
    distribution: str
    version: str
    sha256: str
    editable: bool
    entry_point: importlib.metadata.EntryPoint


def find_installed() -> list[InstalledPlugin]:
    """Every installed distribution with our entry-point group, by plugin name. Runs none of their code.

    Raises PluginLoadError as :func:`content_sha256`.
    """
    found = []
    for entry_point in importlib.metadata.entry_points(group=GROUP):
        dist = entry_point.dist
        if dist is None:
            continue
        package = entry_point.module.partition(".")[0]
        found.append(
            InstalledPlugin(
                entry_point.name,
                dist.metadata["Name"],
                dist.version,
                content_sha256(package),
                _is_editable(dist, _folder(package)),
                entry_point,
            )
        )
    return sorted(found, key=lambda plugin: (plugin.name, plugin.distribution))


def content_sha256(package: str) -> str:
    """sha256 over the sorted contents of a top-level package's importable files, without importing it.

    Bytecode caches don't count since they are never read: the process sets its own cache folder before loading.
    Raises PluginLoadError when there is no such package, or it is not a plain folder of plain files.
    """
    root = _folder(package)
    total = hashlib.sha256()
    for path in sorted(root.rglob("*"), key=lambda p: p.relative_to(root).as_posix()):
        relative = path.relative_to(root)
        if path.is_symlink():  # asked first: a linked folder is a folder too, and what it holds could be imported
            raise PluginLoadError(f"plugin package {package!r} holds a symbolic link")
        if path.is_dir():
            continue
        if not path.is_file():
            raise PluginLoadError(f"plugin package {package!r} holds something that is no file")
        if "__pycache__" in relative.parts:
            if path.suffix != ".pyc":
                raise PluginLoadError(f"plugin package {package!r} hides a file in its bytecode cache")
            continue
        total.update(relative.as_posix().encode() + b"\x00" + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def _folder(package: str) -> Path:
    """The one folder of a top-level package, without importing it. Raises PluginLoadError."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError) as exc:
        raise PluginLoadError(f"plugin package {package!r} can't be found: {_kind(exc)}") from exc
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    if spec is None or spec.origin is None or len(places) != 1:
        raise PluginLoadError(f"plugin package {package!r} is not one folder of sources", do="reinstall the plugin")
    return Path(places[0])


def load(allowed: Iterable[AllowedPlugin], *, dev: bool = False, process: str = "core") -> Plan:
    """Load exactly the plugins on the allow list and freeze them into a plan.

    ``dev`` admits editable installs. Raises a PluginLoadError for anything that differs from the list or from
    the contract, and for an installed plugin that is not on the list: nothing is loaded by halves, none of their
    code runs before all of them are checked, the process does not start.
    """
    _own_bytecode_cache()
    checked = _checked(list(allowed), find_installed(), dev=dev)
    plugins = {wanted.name: _construct(plugin, wanted.settings) for wanted, plugin in checked}
    return vet(plugins, {wanted.name: plugin.sha256 for wanted, plugin in checked}, process=process)


def _checked(
    allowed: Sequence[AllowedPlugin], found: Sequence[InstalledPlugin], *, dev: bool
) -> list[tuple[AllowedPlugin, InstalledPlugin]]:
    """The allow list's lines, each with what is installed under its name. Raises PluginLoadError."""
    installed = {plugin.name: plugin for plugin in found}
    if len(installed) != len(found):
        raise DuplicateOwnerError("two installed plugins have one name", do="remove one of the distributions")
    for name, count in Counter(wanted.name for wanted in allowed).items():
        if count > 1:
            raise DuplicateOwnerError(f"plugin {name!r} is listed twice")
    for name in sorted(installed.keys() - {wanted.name for wanted in allowed}):
        raise NotAllowListedError(
            f"plugin {name!r} is installed but not on the allow list",
            do="remove it, or add it with `safety-wrapper config plugins --write`",
        )
    checked = []
    for wanted in allowed:
        plugin = installed.get(wanted.name)
        if plugin is None:
            raise NotAllowListedError(f"plugin {wanted.name!r} is on the list but not installed")
        if (plugin.version, plugin.sha256) != (wanted.version, wanted.sha256):
            raise NotAllowListedError(
                f"plugin {wanted.name!r} differs from the allow list",
                do="check where the change came from, then `safety-wrapper config plugins --write`",
            )
        if plugin.editable and not dev:
            raise NotAllowListedError(f"plugin {wanted.name!r} is an editable install", do="install it, or use --dev")
        checked.append((wanted, plugin))
    return checked


def vet(plugins: Mapping[str, object], contents: Mapping[str, str] | None = None, *, process: str = "core") -> Plan:
    """Check constructed plugins against the contract and freeze them. ``contents``: name → content hash."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    for name, plugin in plugins.items():
        try:
            manager.register(plugin, name=name)
        except Exception as exc:  # the manager looks at every attribute, and a property may raise anything
            raise PluginLoadError(f"plugin {name!r} does not fit the contract: {_kind(exc)}") from exc
    _refuse_unknown_hooks(manager, plugins)
    implementations: dict[str, tuple[Implementation, ...]] = {}
    for hook in hookspecs.HOOKS:
        # pluggy calls the last registered first; nothing of ours depends on the order, the equivalence test does
        impls = reversed(getattr(manager.hook, hook).get_hookimpls())
        implementations[hook] = tuple(_vetted(hook, impl) for impl in impls)
    for name in plugins:
        if not any(impl.plugin == name for impls in implementations.values() for impl in impls):
            raise UnknownHookError(f"plugin {name!r} implements no hook")
    if process == "core":
        implementations.update(dict.fromkeys(hookspecs.VAULT_HOOKS, ()))
    owners = _owners(implementations["register_tools"], {impl.plugin for impl in implementations["execute_tool_call"]})
    digest = hashlib.sha256(
        json.dumps(
            {"plugins": dict(sorted((contents or dict.fromkeys(plugins, "")).items())),
             "hooks": {hook: [impl.plugin for impl in impls] for hook, impls in implementations.items()}},
            sort_keys=True,
        ).encode()
    ).hexdigest()  # fmt: skip
    return freeze(implementations, owners, digest)


def _construct(plugin: InstalledPlugin, settings: Mapping[str, Any]) -> object:
    try:
        factory = plugin.entry_point.load()
        return factory(dict(settings))
    except (Exception, SystemExit) as exc:
        raise PluginLoadError(f"plugin {plugin.name!r} can't be constructed: {_kind(exc)}") from exc


def _vetted(hook: str, impl: Any) -> Implementation:
    contract = hookspecs.CONTRACTS[hook]
    name = impl.plugin_name
    if impl.hookwrapper or impl.wrapper:
        raise WrapperRefusedError(f"plugin {name!r} wraps {hook}")
    if impl.optionalhook:
        raise WrapperRefusedError(f"plugin {name!r} marks {hook} as optional")
    function = impl.function
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise AsyncImplError(f"plugin {name!r}: {hook} is a generator")
    if inspect.iscoroutinefunction(function) is not contract.is_async:
        raise AsyncImplError(f"plugin {name!r}: {hook} must be {'async' if contract.is_async else 'sync'}")
    return Implementation(name, function, tuple(impl.argnames))


def _refuse_unknown_hooks(manager: pluggy.PluginManager, plugins: Mapping[str, object]) -> None:
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as exc:
        raise UnknownHookError("a plugin implements a hook that does not exist") from exc
    for name, plugin in plugins.items():
        for attribute in dir(plugin):
            options = manager.parse_hookimpl_opts(plugin, attribute)
            hook = options and (options.get("specname") or attribute)
            if hook and hook not in hookspecs.CONTRACTS:
                raise UnknownHookError(f"plugin {name!r} implements an unknown hook {hook!r}")


def _owners(registrars: Sequence[Implementation], runners: set[str]) -> dict[str, str]:
    owners: dict[str, str] = {}
    for impl in registrars:
        try:
            tools = impl.function()
        except (Exception, SystemExit) as exc:
            raise PluginLoadError(f"plugin {impl.plugin!r}: register_tools failed: {_kind(exc)}") from exc
        if type(tools) not in {list, tuple} or not all(type(tool) is str and is_dotted(tool) for tool in tools):
            raise PluginLoadError(f"plugin {impl.plugin!r}: register_tools must give a list of dotted names")
        if tools and impl.plugin not in runners:
            raise PluginLoadError(f"plugin {impl.plugin!r} registers tools and implements no execute_tool_call")
        for tool in tools:
            if tool in owners:
                raise DuplicateOwnerError(f"two plugins own the tool {tool!r}")
            owners[tool] = impl.plugin
    return owners


def _is_editable(dist: importlib.metadata.Distribution, folder: Path) -> bool:
    """True unless the package lies where its distribution was installed: also for a folder that shadows it."""
    text = dist.read_text("direct_url.json")
    if text and json.loads(text).get("dir_info", {}).get("editable"):
        return True
    return folder.parent.resolve() != Path(str(dist.locate_file(""))).resolve()


def _own_bytecode_cache() -> None:
    """Keep the interpreter from reading bytecode that lies beside a plugin's sources: only sources are hashed."""
    sys.dont_write_bytecode = True
    sys.pycache_prefix = "/nonexistent/safety-wrapper"


def _kind(exc: BaseException) -> str:
    return type(exc).__name__
