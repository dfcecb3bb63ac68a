# SPDX-License-Identifier: Apache-2.0
"""The key's modes, in pyfakefs: pure file calls, which is what it can show; real pairs of key and certificate."""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from pyfakefs.fake_filesystem import FakeFilesystem

from cc_sammy import config
from cc_sammy.contract import paths
from cc_sammy.errors import StepFailed
from cc_sammy.host.host import Host
from cc_sammy.steps import tls_permissions
from sammy_agent.base.runtime.paths import Paths
from tests.unit.fake_files import new_disk

KEY, CERTIFICATE = "/etc/sammy/tls/node.key", "/etc/sammy/tls/node.crt"


@pytest.fixture
def wanted(fs: FakeFilesystem) -> config.Config:
    new_disk(fs)
    return config.load({})


def test_a_readable_key_is_closed_and_then_there_is_nothing_to_do(fs: FakeFilesystem, wanted: config.Config) -> None:
    fs.create_file(KEY, contents="key", st_mode=0o100644)
    fs.create_file(CERTIFICATE, contents="certificate", st_mode=0o100600)
    os.chown(KEY, 1000, 1000)
    fs.create_file(paths.AGENT_TLS_MARK)  # the agent mends what is in its own files: only modes are looked at
    assert tls_permissions.already_done(Host(), wanted) is None
    tls_permissions.run(Host(), wanted)
    assert [os.stat(path).st_mode & 0o777 for path in (KEY, CERTIFICATE)] == [0o600, 0o644]
    assert {(os.stat(path).st_uid, os.stat(path).st_gid) for path in (KEY, CERTIFICATE)} == {(0, 0)}
    assert tls_permissions.already_done(Host(), wanted) == "key and certificate have the right modes"


def test_a_key_of_somebody_else_is_work_to_do_whatever_its_mode(fs: FakeFilesystem, wanted: config.Config) -> None:
    fs.create_file(KEY, contents="key", st_mode=0o100600)
    os.chown(KEY, 1000, 1000)
    assert tls_permissions.already_done(Host(), wanted) is None
    tls_permissions.run(Host(), wanted)
    assert os.stat(KEY).st_uid == 0


def test_a_key_without_a_certificate_has_its_mode_looked_at_and_no_more(
    fs: FakeFilesystem, wanted: config.Config
) -> None:
    fs.create_file(KEY, contents="a private key\n", st_mode=0o100644)
    tls_permissions.run(Host(), wanted)
    assert tls_permissions.already_done(Host(), wanted) == "key and certificate have the right modes"


def test_no_key_is_no_failure(fs: FakeFilesystem, wanted: config.Config) -> None:
    assert tls_permissions.already_done(Host(), wanted) == f"there is no key at {KEY}"


def test_a_key_that_is_a_link_is_refused(fs: FakeFilesystem, wanted: config.Config) -> None:
    fs.create_file("/etc/shadow", contents="x", st_mode=0o100600)
    fs.create_symlink(KEY, "/etc/shadow")
    assert tls_permissions.already_done(Host(), wanted) is None
    with pytest.raises(StepFailed, match="symbolic link"):
        tls_permissions.run(Host(), wanted)


class Pair:
    """A key and a certificate, signed by nobody known, in files."""

    def __init__(
        self, folder: Path, name: str, days: tuple[int, int] = (-1, 30), usage: x509.ObjectIdentifier | None = None
    ) -> None:
        self.key_file, self.certificate_file = f"{folder}/{name}.key", f"{folder}/{name}.crt"
        self.key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(timezone.utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an issuer")]))
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + timedelta(days=days[0]))
            .not_valid_after(now + timedelta(days=days[1]))
        )
        if usage is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=True)
        signed = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
        Path(self.certificate_file).write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        self.write_key(serialization.NoEncryption())

    def write_key(self, how: serialization.KeySerializationEncryption) -> None:
        pkcs8 = serialization.PrivateFormat.PKCS8
        Path(self.key_file).write_bytes(self.key.private_bytes(serialization.Encoding.PEM, pkcs8, how))


def refusal(key_file: str, certificate_file: str) -> StepFailed:
    with pytest.raises(StepFailed) as failure:
        tls_permissions.require_pair(key_file, certificate_file)
    return failure.value


def test_a_pair_that_is_valid_now_is_accepted_also_with_a_chain_that_nobody_knows(tmp_path: Path) -> None:
    pair, other = Pair(tmp_path, "node"), Pair(tmp_path, "issuer")
    tls_permissions.require_pair(pair.key_file, pair.certificate_file)
    with open(pair.certificate_file, "a") as file:
        file.write(Path(other.certificate_file).read_text())
    tls_permissions.require_pair(pair.key_file, pair.certificate_file)
    with open(pair.certificate_file, "a") as file:
        file.write("-----BEGIN CERTIFICATE-----\nbroken\n-----END CERTIFICATE-----\n")
    assert "cannot be read as a key and its certificate" in str(refusal(pair.key_file, pair.certificate_file))


def test_a_certificate_of_another_key_is_named_with_both_files(tmp_path: Path) -> None:
    pair, other = Pair(tmp_path, "node"), Pair(tmp_path, "other")
    said = str(refusal(pair.key_file, other.certificate_file))
    assert said.startswith(f"the certificate {other.certificate_file} does not match the key {pair.key_file}. Install")


@pytest.mark.parametrize(
    ("days", "words", "transient"),
    [((-9, -1), "has expired; the clock says 20", False), ((1, 9), "is not valid yet; the clock says 20", True)],
)
def test_dates_are_judged_and_only_a_clock_that_runs_late_may_pass(
    tmp_path: Path, days: tuple[int, int], words: str, transient: bool
) -> None:
    pair = Pair(tmp_path, "node", days)
    failure = refusal(pair.key_file, pair.certificate_file)
    assert f"{pair.certificate_file} {words}" in str(failure)
    assert failure.transient is transient


def test_a_client_certificate_is_no_servers(tmp_path: Path) -> None:
    pair = Pair(tmp_path, "node", usage=ExtendedKeyUsageOID.CLIENT_AUTH)
    assert "clients refuse the certificate" in str(refusal(pair.key_file, pair.certificate_file))


def test_a_key_with_a_passphrase_fails_instead_of_asking_the_console(tmp_path: Path) -> None:
    pair = Pair(tmp_path, "node")
    pair.write_key(serialization.BestAvailableEncryption(b"secret"))
    assert "without a passphrase" in str(refusal(pair.key_file, pair.certificate_file))


def test_a_wrong_pair_fails_the_step_after_its_modes_are_set_and_the_agents_own_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "AGENT_TLS_MARK", f"{tmp_path}/mark")
    monkeypatch.setattr(os, "chown", lambda path, uid, gid: None)  # the test need not be root
    monkeypatch.setattr(tls_permissions, "_is_wrong", lambda path, mode: os.stat(path).st_mode & 0o777 != mode)
    pair, other = Pair(tmp_path, "node"), Pair(tmp_path, "other")
    files = {"key_file": pair.key_file, "certificate_file": other.certificate_file}
    wrong = config.load({"tls": files})
    assert tls_permissions.already_done(Host(), wrong) is None
    with pytest.raises(StepFailed, match="does not match the key"):
        tls_permissions.run(Host(), wrong)
    assert os.stat(pair.key_file).st_mode & 0o777 == 0o600
    assert tls_permissions.already_done(Host(), wrong) is None
    right = config.load({"tls": {**files, "certificate_file": pair.certificate_file}})
    tls_permissions.run(Host(), right)
    assert "valid now" in (tls_permissions.already_done(Host(), right) or "")
    (tmp_path / "mark").touch()
    tls_permissions.run(Host(), wrong)
    assert tls_permissions.already_done(Host(), wrong) == "key and certificate have the right modes"


def test_the_agents_mark_is_where_the_agent_puts_it() -> None:
    assert Paths().tls_mark == paths.AGENT_TLS_MARK
