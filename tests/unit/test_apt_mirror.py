# SPDX-License-Identifier: Apache-2.0
"""The copy of apt's sources that a run with a mirror uses; apt itself says what it reads in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pyfakefs.fake_filesystem import FakeFilesystem
from pyfakefs.fake_filesystem_unittest import Pause

from cc_sammy import config
from cc_sammy.common import files
from cc_sammy.host.fake import FakeHost
from cc_sammy.host.host import Host
from cc_sammy.steps import packages
from cc_sammy.system import apt, apt_mirror
from tests.unit.fake_files import contents, lay_out, new_disk, read_only

RELEASE = "ID=debian\nVERSION_CODENAME=bookworm\n"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
LINES = f"""# the image's own
deb http://192.0.2.1/debian bookworm-backports main contrib
deb-src [signed-by={KEYRING}] http://192.0.2.1/debian bookworm-updates main
deb [signed-by={KEYRING}] http://192.0.2.1/debian-security bookworm-security main
deb [arch=amd64 signed-by=/etc/apt/keyrings/sammy-1.asc] http://192.0.2.7/docker bookworm stable
deb http://192.0.2.8/tool stable main
"""
STANZAS = f"""# written by the image's maker
Types: deb deb-src
URIs: mirror+file:///etc/apt/mirrors/debian.list
Suites: bookworm bookworm-updates
 bookworm-security
Components: main
Signed-By: {KEYRING}

Types: deb
URIs: http://192.0.2.9/docker
Suites: bookworm
Components: stable
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 x
 -----END PGP PUBLIC KEY BLOCK-----
"""
BOTH = config.load({"packages": {"mirror": "http://192.0.2.3/debian", "security_mirror": "http://192.0.2.4/security"}})
ARCHIVE_ONLY = config.load({"packages": {"mirror": "http://192.0.2.3/debian"}})
NONE = config.load({})


@pytest.fixture(autouse=True)
def disk(tmp_path: Path, fs: FakeFilesystem) -> FakeFilesystem:  # the real folder is made on the real disk
    new_disk(fs)
    lay_out(
        fs,
        {
            "/etc/os-release": RELEASE,
            "/etc/apt/sources.list": LINES,
            "/etc/apt/sources.list.d/debian.sources": STANZAS,
            "/etc/apt/sources.list.d/old.list.disabled": "deb http://192.0.2.5/ bookworm main\n",
        },
    )
    return fs


def copies(wanted: config.Config) -> tuple[str, str]:
    apt_mirror.select(wanted)
    assert apt_mirror.environment() == {"APT_CONFIG": apt_mirror.CONF}
    lines, stanzas = (files.read_text(f"{apt_mirror.PARTS}/{name}") for name in ("sources.list", "debian.sources"))
    assert lines is not None and stanzas is not None
    return lines, stanzas


def test_the_distributions_entries_come_from_the_mirror_and_all_others_from_where_they_did() -> None:
    lines, stanzas = copies(BOTH)
    assert lines.splitlines()[1:] == [
        "deb http://192.0.2.3/debian bookworm-backports main contrib",
        f"deb-src [signed-by={KEYRING}] http://192.0.2.3/debian bookworm-updates main",
        f"deb [signed-by={KEYRING}] http://192.0.2.4/security bookworm-security main",
        *LINES.splitlines()[4:],
    ]
    archive, security, docker = stanzas.split("\n\n")
    assert "URIs: http://192.0.2.3/debian\nSuites: bookworm bookworm-updates\nComponents: main\n" in archive
    assert "URIs: http://192.0.2.4/security\nSuites: bookworm-security\nComponents: main\n" in security
    assert docker.strip() == STANZAS.split("\n\n")[1].strip()


def test_without_a_mirror_of_the_security_archive_its_entries_stay() -> None:
    lines, stanzas = copies(ARCHIVE_ONLY)
    assert lines.splitlines()[3] == LINES.splitlines()[3]
    assert "URIs: mirror+file:///etc/apt/mirrors/debian.list\nSuites: bookworm-security\n" in stanzas


def test_every_call_of_apt_in_the_run_has_it_and_a_run_without_a_mirror_has_not() -> None:
    class Noting(FakeHost):
        environments: list[object] = []  # noqa: RUF012 - one test's own

        def run(self, argv, **more):  # type: ignore[no-untyped-def]
            if argv[0] in ("apt-get", "dpkg"):
                self.environments.append((more.get("env") or {}).get("APT_CONFIG"))
            return super().run(argv, **more)

    host = Noting()
    apt_mirror.select(BOTH)
    apt.install(host, ["jq"], lists_stale=True)
    assert host.environments == [apt_mirror.CONF] * 2
    apt_mirror.select(NONE)
    apt.install(host, ["jq"])
    assert host.environments[2:] == [None]


def test_a_repository_that_a_later_step_adds_is_seen_and_one_that_is_gone_is_not(disk: FakeFilesystem) -> None:
    copies(BOTH)
    later, copy = "/etc/apt/sources.list.d/sammy-later.list", f"{apt_mirror.PARTS}/sammy-later.list"
    lay_out(disk, {later: "deb [signed-by=/etc/apt/keyrings/sammy-1.asc] http://192.0.2.9/node nodistro main\n"})
    apt_mirror.environment()
    assert files.read_text(copy) == files.read_text(later)
    os.unlink(later)
    apt_mirror.environment()
    assert files.read_text(copy) is None


def test_a_choice_that_cannot_be_noted_is_an_error_and_no_copy_is_used() -> None:
    with read_only("/run"), pytest.raises(OSError, match="Read-only file system"):
        apt_mirror.select(BOTH)
    assert apt_mirror.environment() == {}


def test_the_mirrors_lists_are_read_where_the_images_own_are_there(disk: FakeFilesystem) -> None:
    host = FakeHost()
    lay_out(disk, {"/var/lib/apt/lists/192.0.2.1_Packages": ""})
    for wanted, updates in ((NONE, 0), (BOTH, 1)):
        apt_mirror.select(wanted)
        host.calls.clear()
        packages.run(host, wanted._replace(docker=wanted.docker._replace(source="none")))
        assert sum("update" in call for call in host.calls) == updates


def test_apt_itself_reads_the_copy_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: FakeFilesystem
) -> None:
    folder = f"{tmp_path}/apt"
    monkeypatch.setattr(apt_mirror, "PARTS", f"{folder}/sources.list.d")
    monkeypatch.setattr(apt_mirror, "CONF", f"{folder}/apt.conf")
    apt_mirror.select(BOTH)
    environment, made, real = apt_mirror.environment(), contents(disk, folder), Host()
    with Pause(disk):  # apt reads a real disk
        for path, text in made.items():
            files.write_text(path, text)
        read = ["apt-get", "update", "--print-uris"]  # fetches nothing
        asked = {line.split("'")[1] for line in real.run(read, env=environment).stdout.splitlines()}
        assert {uri for uri in asked if uri.endswith("InRelease")} == {
            f"http://192.0.2.{place}/InRelease"
            for place in (
                "3/debian/dists/bookworm",
                "3/debian/dists/bookworm-updates",
                "3/debian/dists/bookworm-backports",
                "4/security/dists/bookworm-security",
                "7/docker/dists/bookworm",
                "9/docker/dists/bookworm",
                "8/tool/dists/stable",
            )
        }
        assert "192.0.2.3" not in real.run(read).stdout, "the machine's own sources are as they were"
