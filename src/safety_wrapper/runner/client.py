"""The core's way to the runner: one connection, many runs at once, made anew when it broke."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from safety_wrapper.errors import RunnerError, WireError
from safety_wrapper.frames import AsyncClient
from safety_wrapper.model import Health
from safety_wrapper.runner import protocol
from safety_wrapper.runner.protocol import Blobs, FileOutcome, FileRequest, RunOutcome, RunRequest

_ANSWER_S: Final = 15.0
#: A run's own bound is held by the runner; this much later the runner itself counts as hung.
_GRACE_S: Final = 20.0


class RunnerClient:
    """Speaks to runner.sock. Every method but ``health`` raises RunnerError when the runner is away, hung or refuses.

    RunnerError's ``code`` says which: ``unavailable``, ``deadline``, ``busy``, ``bad_request``, ``not_permitted``.
    """

    def __init__(self, socket_path: Path) -> None:
        self._path = socket_path
        self._client: AsyncClient | None = None
        self._connecting = asyncio.Lock()
        self._background: set[asyncio.Task[None]] = set()

    async def run(self, request: RunRequest) -> RunOutcome:
        """Run one program to its end. Cancelling this ends the run."""
        seconds = request.limits.wall_s + _GRACE_S
        try:
            answer = await self._ask("run", lambda blobs: protocol.run_body(request, blobs), seconds)
        except asyncio.CancelledError:
            task = asyncio.get_running_loop().create_task(self._kill_quietly(request.job))
            self._background.add(task)
            task.add_done_callback(self._background.discard)
            raise
        return _parsed(protocol.parse_run_answer, answer)

    async def file(self, request: FileRequest) -> FileOutcome:
        """Do one file operation."""
        answer = await self._ask("file", lambda blobs: protocol.file_body(request, blobs))
        return _parsed(protocol.parse_file_answer, answer)

    async def kill(self, job: str) -> bool:
        """End a run; True when there was one. It has ended when this returns."""
        return (await self._ask("kill", lambda _: {"job": job})).get("killed") is True

    async def jobs(self) -> list[dict[str, Any]]:
        """What runs now: ``{"job", "elapsed_ms"}`` each."""
        found = (await self._ask("jobs", lambda _: {})).get("jobs")
        return found if isinstance(found, list) else []

    async def health(self) -> list[Health]:
        """The runner's checks; a runner that is away is one failed check, not an error."""
        try:
            answer = await self._ask("health", lambda _: {})
            return [Health(c["name"], c["ok"] is True, c["detail"], c["weaker"] is True) for c in answer["checks"]]
        except (RunnerError, KeyError, TypeError):
            return [Health("runner", ok=False, detail="the runner is away: start it with `safety-wrapper up`")]

    def close(self) -> None:
        """Close the connection: its runs end."""
        if self._client is not None:
            self._client.close()
            self._client = None

    async def _ask(
        self, verb: str, make: Callable[[Blobs], dict[str, Any]], seconds: float = _ANSWER_S
    ) -> dict[str, Any]:
        blobs = Blobs()
        try:
            body = make(blobs)
            async with asyncio.timeout(seconds):
                client = await self._connected()
                return await client.call(verb, _descriptors=blobs.descriptors, **body)
        except TimeoutError as exc:
            self.close()  # what still runs there ends with the connection
            raise _fault("deadline", "the runner did not answer in time") from exc
        except WireError as exc:
            raise _fault(exc.code, f"the runner refused: {exc.message}") from exc
        except OSError as exc:
            raise _fault("unavailable", "the runner is away") from exc
        finally:
            blobs.close()

    async def _connected(self) -> AsyncClient:
        async with self._connecting:
            if self._client is None or self._client.closed:
                self._client = await AsyncClient.connect(self._path)
            return self._client

    async def _kill_quietly(self, job: str) -> None:
        with contextlib.suppress(RunnerError):
            await self.kill(job)


def _parsed[T](parse: Callable[[dict[str, Any]], T], answer: dict[str, Any]) -> T:
    try:
        return parse(answer)
    except WireError as exc:
        raise _fault("unavailable", "the runner's answer can't be read") from exc


def _fault(code: str, message: str) -> RunnerError:
    error = RunnerError(message)
    error.code = code
    return error
