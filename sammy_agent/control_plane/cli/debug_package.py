# SPDX-License-Identifier: Apache-2.0
"""`sammy-agent control-plane debug-package NODE`: fetches a node's debug package, whole or not at all.

It asks the node by itself, as the running control plane would; so it works while that one is down, too.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from sammy_agent.base.errors import ControlPlaneError
from sammy_agent.base.runtime import files
from sammy_agent.base.wire.claims import CHECKSUM_HEADER

if TYPE_CHECKING:
    import requests

    from sammy_agent.control_plane.storage.database import Store

CHUNK = 256 * 1024
MIB = 1024 * 1024


def add_parsers(inner: Any) -> list[argparse.ArgumentParser]:
    """Add the verb to `control-plane`."""
    parser: argparse.ArgumentParser = inner.add_parser(
        "debug-package", help="fetch what tells why a node is as it is, without its secrets"
    )
    parser.add_argument("node")
    parser.add_argument("--output", metavar="FILE", help="write it there (default: debug-NODE-TIME.tar.gz, here)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return [parser]


def debug_package(arguments: argparse.Namespace, store: Store) -> int:
    """Fetch it; return the exit status. ControlPlaneError when it cannot be had."""
    from sammy_agent.control_plane.certificate_authority import CertificateAuthority
    from sammy_agent.control_plane.node_client import NodeClient
    from sammy_agent.control_plane.token_signer import TokenSigner

    row = store.require_node(arguments.node)
    url = store.get_setting("url")
    if url is None:
        raise ControlPlaneError(
            "this control plane has never run", "Start it once, so that it knows its address: sammy-agent control-plane"
        )
    default = f"debug-{arguments.node}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}.tar.gz"
    path = os.path.abspath(arguments.output or default)
    began = time.monotonic()
    node_client = NodeClient(TokenSigner.open(arguments.state), CertificateAuthority(arguments.state), url)
    with contextlib.closing(node_client), _atomic_output(path) as file:
        with _progress_while(f"{arguments.node} preparing its debug package"):
            answer = node_client.get(row, "/debug-package")
        with answer:
            size, digest = _save(answer, file, arguments.node)
    seconds = round(time.monotonic() - began, 1)
    if arguments.json:
        print(json.dumps({"path": path, "bytes": size, "sha256": digest, "seconds": seconds}))
    else:
        print(f"{path}  {size / 1024:.0f} KiB, {seconds} s, secrets scrubbed by the node")
    return 0


@contextlib.contextmanager
def _atomic_output(path: str) -> Iterator[BinaryIO]:
    """Yield a private file that becomes `path` when all went well. ControlPlaneError when it cannot be written."""
    beside = f"{path}.{os.getpid()}.part"
    try:
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, files.PRIVATE), "wb") as file:
            yield file
        os.replace(beside, path)
    except OSError as error:
        raise ControlPlaneError(f"{path}: {error.strerror}", "Choose another file with --output") from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(beside)


def _save(answer: requests.Response, file: BinaryIO, node: str) -> tuple[int, str]:
    """Write the body; return size and SHA-256. ControlPlaneError when it is not whole."""
    promised, digest, size = answer.headers.get("Content-Length"), hashlib.sha256(), 0
    try:
        for data in _chunks(answer, node):
            file.write(data)
            digest.update(data)
            size += len(data)
            _progress(f"{size / MIB:.1f}{f' of {int(promised) / MIB:.1f}' if promised else ''} MiB")
    finally:
        _progress("")
    whole = promised in (None, str(size)) and answer.headers.get(CHECKSUM_HEADER) in (None, digest.hexdigest())
    if not whole:
        raise ControlPlaneError(f"{node} closed the connection: {size} of {promised} bytes came", "Run it again")
    return size, digest.hexdigest()


def _chunks(answer: requests.Response, node: str) -> Iterator[bytes]:
    import requests

    from sammy_agent.transport import describe

    try:
        yield from answer.iter_content(CHUNK)
    except requests.RequestException as error:
        raise ControlPlaneError(f"{node} closed the connection: {describe(error)}", "Run it again") from error


@contextlib.contextmanager
def _progress_while(words: str) -> Iterator[None]:
    """Show on a terminal for how long something has been waited for."""
    over = threading.Event()
    began = time.monotonic()

    def tell() -> None:
        while not over.wait(1.0):
            _progress(f"{words}: {time.monotonic() - began:.0f} s")

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        _progress("")


def _progress(words: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{words}", end="", file=sys.stderr, flush=True)


VERBS = {"debug-package": debug_package}
