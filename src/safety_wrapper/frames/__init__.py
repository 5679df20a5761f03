"""Framed JSON over Unix sockets: one implementation for every socket of the engine, server and client.

Who the peer is comes from the kernel (SO_PEERCRED), never from a frame. A frame that is cut, slow, too long, not
strict JSON or without a known verb gets one error answer with fixed text, then the connection closes.
Source: docs/reference/schemas.md §1.
"""

from safety_wrapper.frames.client import AsyncClient, Client
from safety_wrapper.frames.connection import Connection, Handler, Limits, Request
from safety_wrapper.frames.server import Server
from safety_wrapper.frames.wire import (
    MAX_DESCRIPTORS,
    MAX_FRAME_BYTES,
    MEMFD_ABOVE,
    MESSAGES,
    Peer,
    check_answer,
    encode,
    from_memfd,
    peer_of,
    to_memfd,
)

__all__ = [
    "MAX_DESCRIPTORS",
    "MAX_FRAME_BYTES",
    "MEMFD_ABOVE",
    "MESSAGES",
    "AsyncClient",
    "Client",
    "Connection",
    "Handler",
    "Limits",
    "Peer",
    "Request",
    "Server",
    "check_answer",
    "encode",
    "from_memfd",
    "peer_of",
    "to_memfd",
]
