"""The process that runs commands and touches files for the agent, in sandboxes; see docs/reference/runner.md.

``serve(config)`` is the process, ``runner.client.RunnerClient`` the core's way to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from safety_wrapper.config import Config


def preload() -> None:
    """Import everything that :func:`serve` needs, before the process drops its uid."""
    from safety_wrapper.runner import server

    server.preload()


def serve(config: Config) -> None:
    """Be the runner until SIGTERM. Blocks. Raises ConfigError as uid 0 or for a configuration that is refused."""
    from safety_wrapper.runner import server

    server.serve(config)


async def serve_forever(config: Config, ready: Callable[[], None] = lambda: None) -> None:
    """As :func:`serve`, inside a running loop; ``ready`` is called when the socket listens."""
    from safety_wrapper.runner import server

    await server.serve_forever(config, ready)
