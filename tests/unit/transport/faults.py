# SPDX-License-Identifier: Apache-2.0
"""A server whose every byte is the test's choice, and the ways a server misbehaves, one small function each.

A script is called for each request with an Exchange and decides what goes back; scripts are plain functions, so
`by_turns(reset, answer)` reads as what happens.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import itertools
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass
class Exchange:
    """One request as it arrived, and the connection to misbehave on."""

    sock: socket.socket
    port: int
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    stopped: threading.Event = field(repr=False)

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)


Script = Callable[[Exchange], None]


class Disconnect(Exception):
    """A script has ended its connection."""


def answer(exchange: Exchange, body: bytes = b"ok") -> None:
    exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


def own_port(exchange: Exchange) -> None:
    """Answer with the client's port: a new one is a new connection."""
    answer(exchange, str(exchange.port).encode())


def end(exchange: Exchange) -> None:
    """Close without a word."""
    raise Disconnect


def reset(exchange: Exchange) -> None:
    """Close with RST."""
    exchange.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raise Disconnect


def half_header(exchange: Exchange) -> None:
    exchange.send(b"HTTP/1.1 200 OK\r\nContent-Le")
    raise Disconnect


def half_body(exchange: Exchange) -> None:
    """Announce more than is sent: the wrong length, or a server that died midway."""
    exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    raise Disconnect


def half_chunk(exchange: Exchange) -> None:
    exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nhalf")
    raise Disconnect


def no_http(exchange: Exchange) -> None:
    exchange.send(b"\x00\x01\x02 not HTTP at all\r\n\r\n")
    raise Disconnect


def silent(exchange: Exchange) -> None:
    """Acknowledge and never answer."""
    exchange.stopped.wait(120)
    raise Disconnect


def dribble_body(exchange: Exchange) -> None:
    """A byte each 0.1 s: no single read is ever slow."""
    exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    _dribble(exchange, b"x" * 1000)


def dribble_header(exchange: Exchange) -> None:
    _dribble(exchange, b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 1000)


def _dribble(exchange: Exchange, data: bytes) -> None:
    for byte in data:
        if exchange.stopped.wait(0.1):
            break
        exchange.send(bytes([byte]))
    raise Disconnect


def early(data: bytes, pause: float = 0.0) -> Script:
    """Answer after the header, read nothing of the body, hang up."""

    def script(exchange: Exchange) -> None:
        exchange.send(data)
        exchange.stopped.wait(pause)
        raise Disconnect

    script.before_body = True  # type: ignore[attr-defined]
    return script


def by_turns(*scripts: Script) -> Script:
    """The first script for the first request, and so on; the last one stays."""
    count = itertools.count()
    lock = threading.Lock()

    def script(exchange: Exchange) -> None:
        with lock:
            turn = next(count)
        scripts[min(turn, len(scripts) - 1)](exchange)

    return script


class Server:
    """Serves connections in threads; `requests` holds every request that arrived, `connections` counts."""

    def __init__(self, script: Script, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self._script, self._tls = script, tls
        self.requests: list[Exchange] = []
        self.connections = 0
        self._stopped = threading.Event()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server((host, 0), family=socket.AF_INET, backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://{host}:{self.port}/"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                sock, (_, port) = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
            threading.Thread(target=self._serve, args=(sock, port), daemon=True).start()

    def _serve(self, sock: socket.socket, port: int) -> None:
        self._open.add(sock)
        plain = sock
        with contextlib.suppress(OSError, Disconnect, ValueError):
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True)
                self._open.add(sock)
            reader = sock.makefile("rb")
            with contextlib.closing(reader):
                while exchange := self._read(reader, sock, port):
                    self.requests.append(exchange)
                    self._script(exchange)
        for each in (sock, plain):
            each.close()
            self._open.discard(each)

    def _read(self, reader: object, sock: socket.socket, port: int) -> Exchange | None:
        line = reader.readline()  # type: ignore[attr-defined]
        if not line:
            return None
        method, path, _ = line.decode().split(" ", 2)
        headers = {}
        while (line := reader.readline().decode().strip()) != "":  # type: ignore[attr-defined]
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        length = 0 if getattr(self._script, "before_body", False) else int(headers.get("content-length", 0))
        body = reader.read(length)  # type: ignore[attr-defined]
        return Exchange(sock, port, method, path, headers, body, self._stopped)

    @property
    def open(self) -> int:
        """Connections open now."""
        return len(self._open)

    def close(self) -> None:
        self._stopped.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


@contextlib.contextmanager
def serving(script: Script, tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    server = Server(script, tls=tls)
    try:
        yield server
    finally:
        server.close()


class Authority:
    """A certificate authority of the test's own; makes server contexts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sammy test authority")])
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        made = self._builder(self._name, self._key.public_key()).add_extension(constraints, critical=True)
        certificate = made.sign(self._key, hashes.SHA256())
        self.ca_file = str(folder / "ca.pem")
        Path(self.ca_file).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _builder(self, name: x509.Name, key: object, *, expired: bool = False) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.timezone.utc)
        start = now - datetime.timedelta(days=2)
        last = now - datetime.timedelta(days=1) if expired else now + datetime.timedelta(days=1)
        made = x509.CertificateBuilder().subject_name(name).issuer_name(self._name).public_key(key)  # type: ignore[arg-type]
        return made.serial_number(x509.random_serial_number()).not_valid_before(start).not_valid_after(last)

    def context(self, *addresses: str, expired: bool = False) -> ssl.SSLContext:
        """Return a server's context for these addresses (names or IP addresses)."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(str(self.server_pem(*addresses, expired=expired)))
        return context

    def server_pem(self, *addresses: str, expired: bool = False) -> Path:
        """Return a file with a server's key and certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
        alternatives = x509.SubjectAlternativeName([_general(address) for address in addresses])
        made = self._builder(name, key.public_key(), expired=expired).add_extension(alternatives, critical=False)
        certificate = made.sign(self._key, hashes.SHA256())
        file = self._folder / f"server-{certificate.serial_number}.pem"
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file.touch(0o600)
        file.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
        return file


def _general(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        return x509.DNSName(address)
