# SPDX-License-Identifier: Apache-2.0
"""Packages of Debian's archive with all they depend on, as apt resolves them against a machine's tree.

Only packages are kept, so that once fetched the laboratory works without a network.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab.shell import CACHE, LabError, cached, digest, locked, run, say

if TYPE_CHECKING:
    from tests.lab.base import Base

LISTS_GOOD_FOR = 86400.0  # seconds


def closure(base: Base, names: Sequence[str], depends_of: Sequence[Path] = ()) -> list[Path]:
    """Return the .deb files that `base` lacks to have `names`, and to have the packages in `depends_of` (not those).

    :raises LabError: apt's own words, when there is no such package or no mirror.
    """
    needs = [run(["dpkg-deb", "--field", deb, "Package", "Depends", "Pre-Depends"]).stdout for deb in depends_of]
    if not names and not needs:
        return []
    key = digest(base.status, *sorted(names), "|", *sorted(needs))

    def build(directory: Path) -> None:
        say(f"fetching {', '.join([*names, *(deb.stem for deb in depends_of)])} with dependencies ...")
        try:
            _fetch(base, [*names, *map(str, depends_of)], directory, fresh=False)
        except LabError:  # the lists may name versions that the mirror has dropped
            _fetch(base, [*names, *map(str, depends_of)], directory, fresh=True)
        shutil.rmtree(directory / "partial", ignore_errors=True)
        (directory / "lock").unlink(missing_ok=True)

    return sorted(cached(f"closure-{base.suite}", key, build).glob("*.deb"))


def _fetch(base: Base, wanted: Sequence[str], directory: Path, *, fresh: bool) -> None:
    apt = CACHE / f"apt-{base.suite}"
    (directory / "partial").mkdir(exist_ok=True)
    with locked(f"apt-{base.suite}"):
        options = _options(base, apt, directory)
        stamp = apt / "updated"
        if fresh or not stamp.exists() or stamp.stat().st_mtime < time.time() - LISTS_GOOD_FOR:
            run(["apt-get", *options, "-o", "APT::Update::Error-Mode=any", "update"], timeout=300)
            stamp.touch()
        install = ["install", "--download-only", "-y", "--no-install-recommends"]
        run(["apt-get", *options, *install, *wanted], timeout=900)


def _options(base: Base, apt: Path, archives: Path) -> list[str]:
    """Return options that turn the host's apt into one that knows only the tree and Debian."""
    (apt / "lists/partial").mkdir(parents=True, exist_ok=True)
    (apt / "sources.list").write_text(base.debian_sources)
    settings = {
        "Dir::State::status": base.status,
        "Dir::State::lists": apt / "lists",
        "Dir::State::extended_states": apt / "extended_states",
        "Dir::Etc::sourcelist": apt / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::Cache": apt,
        "Dir::Cache::archives": archives,
        "Dir::Etc::trustedparts": "/usr/share/keyrings",
        "APT::Default-Release": "",
        "APT::Sandbox::User": "root",
        "Debug::NoLocking": "true",  # the lock of this file is held
    }
    return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
