# SPDX-License-Identifier: Apache-2.0
"""The files that the firewall keeps: what the next boot loads, the settings, the fetched list, a roll-back's state."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable

import pytest
from pyfakefs.fake_filesystem import FakeFilesystem

from cc_sammy.common import files
from cc_sammy.contract import paths, schema
from cc_sammy.errors import SammyError
from cc_sammy.firewall import boot_files, cloudflare_refresh, enforce, metadata_table, rollback, settings_cache
from cc_sammy.firewall.backends import nftables
from cc_sammy.firewall.model import networks
from cc_sammy.firewall.model.nft_table import render
from cc_sammy.firewall.model.policy import Policy
from cc_sammy.host.fake import FakeHost
from tests.firewall_config import METADATA
from tests.unit.fake_files import contents, disk_full, read_only

POLICY = Policy(8443, allow_any=True)
Fault = Callable[[FakeFilesystem], contextlib.AbstractContextManager[None]]


@pytest.fixture(autouse=True)
def disk(fs: FakeFilesystem) -> None:
    fs.set_disk_usage(1 << 20)
    fs.create_dir(boot_files.FOLDER)


def mode(path: str) -> int:
    return os.stat(path).st_mode & 0o7777


def mounted_read_only(fs: FakeFilesystem) -> contextlib.AbstractContextManager[None]:
    return read_only("/var")


FAULTS = pytest.mark.parametrize(
    ("fault", "said"), [(disk_full, "No space left"), (mounted_read_only, "Read-only file system")], ids=["full", "ro"]
)


def host_in_force() -> FakeHost:
    """Return a host whose kernel refuses nothing and has no table of ours yet."""
    host = FakeHost()
    host.script(["nft", "--json"], 1, stderr="Error: No such file or directory\n")
    return host


def test_what_the_next_boot_loads_is_private_and_whole(fs: FakeFilesystem) -> None:
    boot_files.save(nftables.APPLIED, "rules\n")
    assert (mode(nftables.APPLIED), boot_files.matches(nftables.APPLIED, "rules\n")) == (0o600, True)
    assert not boot_files.matches(nftables.APPLIED, "others\n")
    assert list(contents(fs, boot_files.FOLDER)) == [nftables.APPLIED], "nothing beside it"


@FAULTS
def test_a_fault_of_the_disk_keeps_the_file_of_before_and_names_the_next_step(
    fs: FakeFilesystem, fault: Fault, said: str
) -> None:
    boot_files.save(nftables.APPLIED, "before\n")
    with fault(fs), pytest.raises(SammyError, match=rf"the rules are in force, but .*applied\.nft .*{said}") as caught:
        boot_files.save(nftables.APPLIED, "new rules, and more of them\n")
    assert "sammy firewall apply" in str(caught.value)
    assert contents(fs, boot_files.FOLDER) == {nftables.APPLIED: "before\n"}


def test_the_mark_of_a_lifted_firewall_can_be_read_by_all(fs: FakeFilesystem) -> None:
    assert not boot_files.is_removed()
    boot_files.mark_removed("Removed for a test.")
    assert (boot_files.is_removed(), mode(boot_files.REMOVED)) == (True, 0o644)
    assert files.read_text(boot_files.REMOVED) == "Removed for a test. `sammy firewall apply` brings it back.\n"


# settings


@pytest.fixture
def installed(fs: FakeFilesystem) -> FakeFilesystem:
    fs.add_real_file(schema.PATH)
    files.write_text(paths.OVERRIDES, "SAMMY_FIREWALL_SSH=open\n")
    return fs


def test_settings_are_read_once_and_again_when_a_file_changed(installed: FakeFilesystem) -> None:
    config, port = settings_cache.load({})
    assert (config.ssh, port, mode(settings_cache.CACHE)) == ("open", 8443, 0o600)
    held = json.loads(files.read_text(settings_cache.CACHE) or "")
    held["firewall"]["ssh"] = ["192.0.2.0/24"]
    files.write_text(settings_cache.CACHE, json.dumps(held))
    assert settings_cache.load({})[0].ssh == ("192.0.2.0/24",), "what is kept is believed"
    files.write_text(paths.OVERRIDES, "SAMMY_FIREWALL_SSH=drop-always\n")
    assert settings_cache.load({})[0].ssh == "drop-always"


def test_a_variable_of_the_environment_is_read_anew_and_not_kept(installed: FakeFilesystem) -> None:
    assert settings_cache.load({"SAMMY_FIREWALL_SSH": "drop"})[0].ssh == "drop"
    assert not os.path.exists(settings_cache.CACHE)
    assert settings_cache.load({})[0].ssh == "open"


@pytest.mark.parametrize(
    "kept", ["", "{", "[]", "{}", '{"sources": 1}', "older"], ids=["empty", "cut", "list", "none", "partial", "older"]
)
def test_settings_kept_damaged_or_by_another_version_are_read_anew(installed: FakeFilesystem, kept: str) -> None:
    settings_cache.load({})
    held = json.loads(files.read_text(settings_cache.CACHE) or "")
    del held["firewall"]["required"]
    files.write_text(settings_cache.CACHE, json.dumps(held) if kept == "older" else kept)
    assert settings_cache.load({})[0].ssh == "open"
    assert json.loads(files.read_text(settings_cache.CACHE) or "")["firewall"]["required"] is True


@FAULTS
def test_settings_that_cannot_be_kept_are_used_all_the_same(installed: FakeFilesystem, fault: Fault, said: str) -> None:
    with fault(installed):
        assert settings_cache.load({})[0].ssh == "open"
    assert not os.path.exists(settings_cache.CACHE)
    assert said


# the fetched list


@FAULTS
def test_a_list_that_cannot_be_kept_is_refused_and_the_one_of_before_stays(
    fs: FakeFilesystem, fault: Fault, said: str
) -> None:
    before = cloudflare_refresh.RangesState(networks=networks.CLOUDFLARE[:3], url="https://example.org")
    cloudflare_refresh.save(before)
    assert mode(networks.FETCHED) == 0o600
    with fault(fs), pytest.raises(cloudflare_refresh.RangesRefused, match=said):
        cloudflare_refresh.save(cloudflare_refresh.RangesState(networks=networks.CLOUDFLARE))
    assert cloudflare_refresh.load() == before
    assert networks.current() == networks.CLOUDFLARE[:3]


# roll-back


def test_what_a_roll_back_keeps_is_private(fs: FakeFilesystem) -> None:
    rollback.roll_back(host_in_force(), POLICY, "keep", "it stayed away")
    assert (mode(rollback.ROLLED_BACK), boot_files.is_removed()) == (0o600, True)
    assert (rollback.active_rollback(POLICY) or {})["restored"] is False
    rollback.clear()
    assert rollback.active_rollback(POLICY) is None
    assert rollback.ROLLED_BACK not in contents(fs)


@FAULTS
def test_a_fault_of_the_disk_keeps_the_rules_and_is_said(fs: FakeFilesystem, fault: Fault, said: str) -> None:
    host = host_in_force()
    with fault(fs), pytest.raises(SammyError, match=rf"rolled-back\.json could not be written: {said}"):
        rollback.roll_back(host, POLICY, "keep", "it stayed away")
    assert host.calls == []


@FAULTS
def test_rules_that_cannot_be_kept_as_good_ones_are_not(
    fs: FakeFilesystem, monkeypatch: pytest.MonkeyPatch, fault: Fault, said: str
) -> None:
    monkeypatch.setattr(enforce, "check", lambda *_: [])
    rollback.mark_known_good(FakeHost(), POLICY)
    assert mode(rollback.KNOWN_GOOD) == 0o600
    with fault(fs), pytest.raises(SammyError, match=rf"proven\.json could not be written: {said}"):
        rollback.mark_known_good(FakeHost(), POLICY._replace(ssh="drop"))
    assert rollback.from_text(files.read_text(rollback.KNOWN_GOOD)) == POLICY


def test_a_lift_by_hand_ends_by_its_time(fs: FakeFilesystem) -> None:
    assert rollback.lifted_until() is None
    for text, known in (("4102444800\n", True), ("1\n", False), ("soon\n", False), ("", False)):
        files.write_text(rollback.LIFTED, text)
        assert (rollback.lifted_until() is not None) is known


# the metadata table


def test_the_metadata_table_kept_for_boot_is_known_again(fs: FakeFilesystem) -> None:
    assert metadata_table.stored_table() is None
    for host_processes in (True, False):
        table = metadata_table.build(METADATA, host_processes)
        boot_files.save(metadata_table.BOOT_FILE, render(table))
        assert metadata_table.stored_table() == table
    boot_files.save(metadata_table.BOOT_FILE, "add table inet somebody\n")
    assert metadata_table.stored_table() is None, "not ours"
