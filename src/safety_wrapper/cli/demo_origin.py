"""A small HTTPS server that stands for somebody else's service in the demo: own CA, one name, a log of what came."""

from __future__ import annotations

import datetime as dt
import http.server
import json
import os
import ssl
import threading
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOST: Final = "orders.example.com"


@dataclass(frozen=True, slots=True)
class Origin:
    """The running server. ``log`` holds one JSON line for each request that arrived."""

    port: int
    ca_file: Path
    log: Path
    pid: int

    def arrived(self) -> list[dict[str, str]]:
        """What came so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []


def start(folder: Path) -> Origin:
    """Start the server in a child process; it ends with this one."""
    ca_file, chain = _certificates(folder)
    log = folder / "origin.jsonl"

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            with log.open("a") as file:
                file.write(json.dumps({"method": "POST", "path": self.path, "body": body.decode()}) + "\n")
            answer = json.dumps({"order": 1001, "state": "accepted"}).encode()
            self.send_response(201)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    pid = os.fork()
    if pid == 0:
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
        server.serve_forever()
        os._exit(0)
    port = server.server_address[1]
    server.socket.close()
    return Origin(port, ca_file, log, pid)


def _end_with(parent: int) -> None:
    import time

    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(0)


def _certificates(folder: Path) -> tuple[Path, Path]:
    """A CA and one certificate for HOST; (CA file, chain with key)."""
    now = dt.datetime.now(dt.UTC)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "safety-wrapper demo CA")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])

    def builder(name: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=2))
        )

    ca_usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    authority = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
    ca = (
        builder(issuer, ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(ca_usage, critical=True)
        .add_extension(authority, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    names = x509.SubjectAlternativeName([x509.DNSName(HOST), x509.IPAddress(ip_address("127.0.0.1"))])
    issued = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority)
    leaf = (
        builder(subject, key.public_key())
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(issued, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    ca_file, chain = folder / "demo-ca.pem", folder / "origin.pem"
    ca_file.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    ca_file.chmod(0o644)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain.touch(mode=0o600)
    chain.write_bytes(leaf.public_bytes(serialization.Encoding.PEM) + private)
    return ca_file, chain
