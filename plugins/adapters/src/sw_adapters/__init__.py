"""safety-wrapper plugin ``adapters``: owns ``http.request``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from safety_wrapper.errors import AdapterError
from safety_wrapper.hookspecs import hookimpl
from safety_wrapper.model import Health, Ticket, ToolCall, ToolResult
from sw_adapters import http
from sw_adapters.addresses import Resolver, system_resolver
from sw_adapters.settings import read_settings

HTTP_REQUEST = "http.request"


class Adapters:
    """The plugin. ``resolver`` is passed in by tests."""

    def __init__(self, settings: Mapping[str, Any], *, resolver: Resolver = system_resolver) -> None:
        self._settings = read_settings(settings)
        self._trust = http.trust(self._settings.ca_file)
        self._resolver = resolver

    @hookimpl
    def register_tools(self) -> Sequence[str]:
        return (HTTP_REQUEST,)

    @hookimpl
    async def execute_tool_call(self, call: ToolCall, tickets: Sequence[Ticket]) -> ToolResult:
        if call.tool != HTTP_REQUEST:
            raise AdapterError("no such adapter tool")
        if tickets:
            raise AdapterError("http.request takes no tickets before the vault and the firewall exist")
        return await http.run(call.params, self._settings, self._trust, self._resolver)

    @hookimpl
    def check_health(self) -> Sequence[Health]:
        hosts = len(self._settings.hosts)
        return (
            Health(
                "http.request", ok=True, detail=f"sends by itself, to {hosts} listed hosts; no firewall", weaker=True
            ),
        )


def plugin(settings: Mapping[str, Any]) -> Adapters:
    """The entry point. Raises ConfigError for settings that it can't work with."""
    return Adapters(settings)
