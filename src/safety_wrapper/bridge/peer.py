"""Speak to a socket of ours as another user: the demo's scripted agent, and whoever measures or attacks from outside.

A forked child takes the uid and relays one request at a time, so that the kernel names the right peer.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from safety_wrapper.errors import WireError
from safety_wrapper.frames import MESSAGES, Client
from safety_wrapper.identity import Identity, become


class Peer:
    """A connection to ``path`` held by a child that runs as ``identity``; made anew after it broke.

    ``call`` raises WireError for an error answer and ConnectionError when the socket is away: whoever stands for the
    gateway refuses then.
    """

    def __init__(self, path: Path, identity: Identity, hello: dict[str, Any]) -> None:
        ours, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            _relay(theirs, path, identity, hello)
        theirs.close()
        self._stream = ours.makefile("rwb")
        ours.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def call(self, verb: str, **body: Any) -> dict[str, Any]:
        """One request as the other user."""
        self._stream.write(json.dumps({"verb": verb, "body": body}).encode() + b"\n")
        self._stream.flush()
        line = self._stream.readline()
        if not line:
            raise ConnectionError("the relay ended")
        answer: dict[str, Any] = json.loads(line)
        if "code" in answer:
            raise WireError(answer["code"], MESSAGES.get(answer["code"], MESSAGES["internal"]))
        if "away" in answer:
            raise ConnectionError(answer["away"])
        return answer

    def close(self) -> None:
        """End the child."""
        self._stream.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def _relay(parent: socket.socket, path: Path, identity: Identity, hello: dict[str, Any]) -> None:
    """The child's whole life; never returns."""
    code = 1
    try:
        become(identity)
        client: Client | None = None
        with parent.makefile("rwb") as stream:
            while line := stream.readline():
                request = json.loads(line)
                client, answer = _one(client, path, hello, request)
                stream.write(json.dumps(answer).encode() + b"\n")
                stream.flush()
        code = 0
    finally:
        os._exit(code)


def _one(
    client: Client | None, path: Path, hello: dict[str, Any], request: dict[str, Any]
) -> tuple[Client | None, dict[str, Any]]:
    try:
        client = client or Client(path, timeout_s=90.0, hello=hello)
        return client, client.call(request["verb"], **request["body"])
    except WireError as exc:
        return client, {"code": exc.code}
    except OSError as exc:
        if client is not None:
            client.close()
        return None, {"away": exc.strerror or type(exc).__name__}
