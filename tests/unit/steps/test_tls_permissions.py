# SPDX-License-Identifier: Apache-2.0
"""The key's modes, in pyfakefs: pure file calls, which is what it can show."""

from __future__ import annotations

import os

import pytest
from pyfakefs.fake_filesystem import FakeFilesystem

from cc_sammy import config
from cc_sammy.errors import StepFailed
from cc_sammy.host import Host
from cc_sammy.steps import tls_permissions

KEY, CERTIFICATE = "/etc/sammy/tls/node.key", "/etc/sammy/tls/node.crt"


@pytest.fixture
def wanted(fs: FakeFilesystem) -> config.Config:
    fs.add_real_file(os.path.join(os.path.dirname(config.__file__), "contract", "schema.json"))
    fs.add_real_paths([path for path in ("/usr/lib/python3", "/usr/lib/python3.11") if os.path.exists(path)])
    return config.load({})


def test_a_readable_key_is_closed_and_then_there_is_nothing_to_do(fs: FakeFilesystem, wanted: config.Config) -> None:
    fs.create_file(KEY, contents="key", st_mode=0o100644)
    fs.create_file(CERTIFICATE, contents="certificate", st_mode=0o100600)
    assert tls_permissions.satisfied(Host(), wanted) is None
    tls_permissions.run(Host(), wanted)
    assert [os.stat(path).st_mode & 0o777 for path in (KEY, CERTIFICATE)] == [0o600, 0o644]
    assert tls_permissions.satisfied(Host(), wanted) == "key and certificate have their modes"


def test_no_key_is_no_failure(fs: FakeFilesystem, wanted: config.Config) -> None:
    assert tls_permissions.satisfied(Host(), wanted) == f"there is no key at {KEY}"


def test_a_key_that_is_a_link_is_refused(fs: FakeFilesystem, wanted: config.Config) -> None:
    fs.create_file("/etc/shadow", contents="x", st_mode=0o100600)
    fs.create_symlink(KEY, "/etc/shadow")
    assert tls_permissions.satisfied(Host(), wanted) is None
    with pytest.raises(StepFailed, match="symbolic link"):
        tls_permissions.run(Host(), wanted)
