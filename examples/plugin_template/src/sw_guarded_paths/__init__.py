"""safety-wrapper plugin: a call that mentions a path at or below a guarded folder is RED."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import Any

from safety_wrapper.errors import ConfigError
from safety_wrapper.hookspecs import hookimpl
from safety_wrapper.model import Classification, SafetyClass, ToolCall

#: An absolute path in a text: it ends where a shell or a person would end it.
_PATH = re.compile(r"/[^\s\"'`;|&<>()$*?\[\]{}\\]*")


class GuardedPaths:
    """The plugin. ``prefixes``: absolute folders, normalised."""

    def __init__(self, prefixes: tuple[str, ...]) -> None:
        self._prefixes = prefixes

    @hookimpl
    def classify_tool_call(self, call: ToolCall) -> Classification | None:
        return judge(call.params, self._prefixes)


def plugin(settings: Mapping[str, Any]) -> GuardedPaths:
    """The entry point. Raises ConfigError for settings that are not understood: the core then does not start."""
    prefixes = settings.get("prefixes", [])
    if settings.keys() - {"prefixes"} or not isinstance(prefixes, list):
        raise ConfigError("guarded-paths: the only setting is prefixes, a list of absolute folders")
    if not all(isinstance(prefix, str) and re.fullmatch(r"/[^/].*", prefix) for prefix in prefixes):
        raise ConfigError("guarded-paths: each of prefixes must be an absolute folder below /")
    return GuardedPaths(tuple(posixpath.normpath(prefix) for prefix in prefixes))


def judge(params: Mapping[str, Any], prefixes: tuple[str, ...]) -> Classification | None:
    """RED when a parameter mentions a guarded path, else no opinion. Pure. O(size of the parameters).

    It sees what is written: a link, a variable or a relative path that leads there is the base policy's business.
    """
    for text in _texts(params):
        for found in _PATH.findall(text):
            path = posixpath.normpath(re.sub(r"/+", "/", found))
            if any(path == prefix or path.startswith(prefix + "/") for prefix in prefixes):
                return Classification(
                    SafetyClass.RED,
                    rules=("guarded_paths.touched",),
                    reason="this touches a guarded folder",
                    instead="Work on a copy outside of it.",
                )
    return None


def _texts(value: Any) -> Iterator[str]:
    """Every text in a JSON value, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
