"""A real TLS server on loopback whose every answer is raw bytes chosen by the test, and an authority of its own."""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NAME = "api.example.test"
type Answering = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Seen:
    """What reached the server: each request's bytes, head and body."""

    requests: list[bytes] = field(default_factory=list)
    port: int = 0


def write_authority(folder: Path) -> tuple[Path, Path, Path]:
    """An authority and a certificate for NAME: (ca file, certificate file, key file)."""
    now = dt.datetime.now(dt.UTC)
    day = dt.timedelta(days=1)

    def certificate(name: str, issuer: str, key, signer, *, ca: bool) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - day)
            .not_valid_after(now + day)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        )
        if ca:
            usage = x509.KeyUsage(
                digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False,
                key_encipherment=False, data_encipherment=False, key_agreement=False,
                encipher_only=False, decipher_only=False,
            )  # fmt: skip
            builder = builder.add_extension(usage, critical=True)
        else:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        return builder.sign(signer, hashes.SHA256())

    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    files = folder / "ca.pem", folder / "cert.pem", folder / "key.pem"
    pem = serialization.Encoding.PEM
    files[0].write_bytes(certificate("test authority", "test authority", ca_key, ca_key, ca=True).public_bytes(pem))
    files[1].write_bytes(certificate(NAME, "test authority", key, ca_key, ca=False).public_bytes(pem))
    files[2].write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return files


@asynccontextmanager
async def serving(answering: Answering, files: tuple[Path, Path, Path] | None) -> AsyncIterator[Seen]:
    """Serve on a free port of loopback; plain HTTP when ``files`` is None."""
    seen = Seen()
    context = None
    if files is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files[1], files[2])

    async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = 0
            for line in head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            body = await reader.readexactly(length)
            seen.requests.append(head + body)
            await answering(head + body, writer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(on_connection, "127.0.0.1", 0, ssl=context)
    seen.port = server.sockets[0].getsockname()[1]
    try:
        yield seen
    finally:
        server.close()
        server.close_clients()
        await server.wait_closed()


def answers(data: bytes) -> Answering:
    """An answer that is these bytes, then the end."""

    async def answering(_request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    return answering


def ok(body: bytes, *headers: str) -> bytes:
    """A whole answer of 200."""
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@pytest.fixture(scope="session")
def files(tmp_path_factory) -> tuple[Path, Path, Path]:
    """(ca file, certificate file, key file) of a certificate for NAME."""
    return write_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def web() -> SimpleNamespace:
    """``serving(answering, files)``, ``answers(bytes)``, ``ok(body, *headers)``, ``name``."""
    return SimpleNamespace(serving=serving, answers=answers, ok=ok, name=NAME)
