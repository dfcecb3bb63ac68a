# SPDX-License-Identifier: Apache-2.0
"""Debian's docker-registry in the edge's network, with one small image that was never pushed: its files are written."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

from tests.lab import archive
from tests.lab.base import Base
from tests.lab.network import Loopback, Network
from tests.lab.shell import LabError, cached, digest, run, wait_until

NAME, TAG = "busybox", "1"
AS_MIRROR = f"library/{NAME}"  # what dockerd asks a mirror of its default registry for
APPLETS = ("sh", "echo", "cat", "sleep", "true", "false", "id", "ls", "nc", "env", "mount", "ip", "ps", "kill")
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def storage(base: Base) -> Path:
    """Return a registry's storage that holds the image busybox:1, made of the suite's busybox-static."""
    (deb,) = archive.closure(base, ["busybox-static"])

    def build(directory: Path) -> None:
        tree = directory / "tree"
        run(["dpkg-deb", "--extract", deb, tree])
        # /usr-merged since trixie
        program = next(path for path in (tree / "bin/busybox", tree / "usr/bin/busybox") if path.exists())
        _write_image(directory / "storage", program.read_bytes())

    return cached("image", digest(base.suite, deb.name, *APPLETS, AS_MIRROR), build) / "storage"


def _layer(busybox: bytes) -> bytes:
    """Return the image's only layer, the same bytes for the same busybox."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name in ("bin", "tmp", "etc"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(folder)
        program = tarfile.TarInfo("bin/busybox")
        program.size, program.mode = len(busybox), 0o755
        tar.addfile(program, io.BytesIO(busybox))
        for applet in APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return stream.getvalue()


def _write_image(storage: Path, busybox: bytes) -> None:
    root = storage / "docker/registry/v2"
    plain = _layer(busybox)
    packed = gzip.compress(plain, mtime=0)
    architecture = run(["dpkg", "--print-architecture"]).stdout.strip()
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(plain).hexdigest()}"]},
        "history": [{"created_by": "lab"}],
    }

    def blob(content: bytes, kind: str) -> dict[str, Any]:
        name = hashlib.sha256(content).hexdigest()
        folder = root / "blobs/sha256" / name[:2] / name
        folder.mkdir(parents=True)
        (folder / "data").write_bytes(content)
        return {"mediaType": kind, "size": len(content), "digest": f"sha256:{name}"}

    def link(folder: str, name: str) -> None:
        for repository in (NAME, AS_MIRROR):
            path = root / "repositories" / repository / folder / "link"
            path.parent.mkdir(parents=True)
            path.write_text(name)

    parts = [
        blob(json.dumps(config).encode(), "application/vnd.docker.container.image.v1+json"),
        blob(packed, "application/vnd.docker.image.rootfs.diff.tar.gzip"),
    ]
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": parts[0], "layers": parts[1:]}
    whole = blob(json.dumps(manifest).encode(), MANIFEST)["digest"]
    for part in parts:
        link(f"_layers/{part['digest'].replace(':', '/')}", part["digest"])
    path = whole.replace(":", "/")
    for folder in (
        f"_manifests/revisions/{path}",
        f"_manifests/tags/{TAG}/current",
        f"_manifests/tags/{TAG}/index/{path}",
    ):
        link(folder, whole)


class Registry:
    """docker-registry on a port of the edge; `close` ends it."""

    def __init__(self, network: Network | Loopback, base: Base, directory: Path, port: int) -> None:
        settings = {
            "version": 0.1,
            "log": {"level": "warn"},
            "storage": {"filesystem": {"rootdirectory": str(storage(base))}},
            "http": {"addr": f"{network.bind.replace('::', '')}:{port}"},
        }
        config, log = directory / "registry.yml", directory / "registry.log"
        config.write_text(json.dumps(settings))  # JSON is YAML
        command = [*network.enter("edge"), "docker-registry", "serve", str(config)]
        with log.open("wb") as output:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)

        def answers() -> bool:
            if self._process.poll() is not None:
                raise LabError(f"docker-registry ended: {log.read_text()[-1000:]}", "apt-get install docker-registry")
            try:
                return network.call("edge", lambda: _status(port)) == 200
            except OSError:
                return False

        try:
            wait_until(answers, "docker-registry answers", 60)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


def _status(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/v2/")
        return connection.getresponse().status
    finally:
        connection.close()
