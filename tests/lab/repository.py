# SPDX-License-Identifier: Apache-2.0
"""A signed apt repository made of .deb files, with a key that lives only as long as the making."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.lab.shell import run

SUITE, COMPONENT = "stable", "main"


def make(directory: Path, debs: Sequence[Path]) -> str:
    """Fill `directory` with a repository (suite stable, component main); return its key, ASCII armoured.

    :raises LabError: apt-ftparchive (package apt-utils) or gpg is missing.
    """
    pool = directory / "pool"
    pool.mkdir(parents=True)
    for deb in debs:
        link_or_copy(deb, pool / deb.name)
    architecture = run(["dpkg", "--print-architecture"]).stdout.strip()
    lists = directory / "dists" / SUITE / COMPONENT / f"binary-{architecture}"
    lists.mkdir(parents=True)
    quick = [word for kind in ("MD5", "SHA1", "SHA512") for word in ("-o", f"APT::FTPArchive::{kind}=false")]
    packages = run(["apt-ftparchive", *quick, "packages", "pool"], cwd=directory).stdout
    (lists / "Packages").write_text(packages)
    about = {"Origin": "lab", "Suite": SUITE, "Codename": SUITE, "Components": COMPONENT, "Architectures": architecture}
    fields = [word for name, value in about.items() for word in ("-o", f"APT::FTPArchive::Release::{name}={value}")]
    release = run(["apt-ftparchive", *quick, *fields, "release", f"dists/{SUITE}"], cwd=directory).stdout
    signed, key = _sign(release)
    (directory / "dists" / SUITE / "InRelease").write_text(signed)
    return key


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where file systems differ."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy(source, target)


def _sign(text: str) -> tuple[str, str]:
    # A short path: the agent's socket lies in it and must fit 108 bytes.
    with tempfile.TemporaryDirectory(prefix="lab-gpg-") as home:
        gpg, env = ["gpg", "--batch", "--quiet", "--pinentry-mode=loopback", "--passphrase="], {"GNUPGHOME": home}
        try:
            run([*gpg, "--quick-generate-key", "lab repository", "ed25519", "sign", "never"], env=env)
            signed = run([*gpg, "--clearsign", "--digest-algo=SHA256"], input=text, env=env).stdout
            return signed, run([*gpg, "--armor", "--export"], env=env).stdout
        finally:
            run(["gpgconf", "--kill", "all"], env=env, check=False)
