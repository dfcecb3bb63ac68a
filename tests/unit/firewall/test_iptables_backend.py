# SPDX-License-Identifier: Apache-2.0
"""The backend iptables against what the real programs printed, and against a kernel that refuses, forgets and has more.

That the real ones do as these do is held by tests/network.
"""

from __future__ import annotations

import os
import re
from ipaddress import IPv4Network, IPv6Network

import pytest
from pyfakefs.fake_filesystem import FakeFilesystem

from cc_sammy.errors import CommandFailed, SammyError
from cc_sammy.firewall import boot_files
from cc_sammy.firewall.backends import foreign_rules, iptables
from cc_sammy.firewall.model.policy import Policy
from cc_sammy.host.fake import FakeHost
from tests.unit.firewall.fake_iptables import RECORDED, Iptables

# the policy that was loaded for the records
POLICY = Policy(
    8443,
    (IPv4Network("203.0.113.0/24"), IPv4Network("198.51.100.7/32")),
    (IPv6Network("2001:db8::/32"),),
    ssh="drop",
    backend="iptables",
)
LOADED = {"iptables_nft": RECORDED["iptables-nft.loaded"], "ip6tables_nft": RECORDED["ip6tables-nft.loaded"]}


@pytest.fixture(autouse=True)
def machine(fs: FakeFilesystem) -> None:
    """A machine with IPv6 and without legacy's tables."""
    fs.create_file(iptables.HAS_IPV6)
    fs.create_dir(boot_files.FOLDER)


def keep_for_boot() -> None:
    for version in (4, 6):
        boot_files.save(iptables.boot_path("nft", version), iptables.boot_text(POLICY, version))


@pytest.mark.parametrize(
    ("printed", "used"),
    [("iptables v1.8.9 (nf_tables)", "nft"), ("iptables v1.8.9 (legacy)", "legacy"), ("iptables v1.6.1", "legacy")],
)
def test_the_variant_is_the_one_that_the_plain_command_is(printed: str, used: str) -> None:
    assert iptables.variant(Iptables(printed)) == used


@pytest.mark.parametrize(
    ("status", "said", "words"),
    [
        (127, "", "iptables is not there: the firewall was not changed.*apt install iptables"),
        (
            3,
            "Failed to initialize nft: Protocol not supported",
            "does not work here .*Protocol not supported.*modprobe",
        ),
    ],
)
def test_why_there_is_no_iptables_is_said_with_the_next_step(status: int, said: str, words: str) -> None:
    host = FakeHost()
    host.script(["iptables", "-V"], status, stderr=said)
    with pytest.raises(SammyError, match=words):
        iptables.load(host, POLICY)
    assert host.calls == [("iptables", "-V")], "nothing was changed"


def test_what_is_loaded_is_what_the_real_programs_printed_and_is_kept_for_the_next_boot() -> None:
    host = Iptables()
    iptables.load(host, POLICY)
    assert host.tables["iptables-nft"] == RECORDED["iptables-nft.loaded"]
    assert host.tables["ip6tables-nft"] == RECORDED["ip6tables-nft.loaded"]
    kept = {version: iptables.boot_path("nft", version) for version in (4, 6)}
    assert all(boot_files.matches(path, iptables.boot_text(POLICY, version)) for version, path in kept.items())
    assert iptables.drift(host, POLICY) == []
    iptables.load(host, POLICY)
    assert host.tables["iptables-nft"] == RECORDED["iptables-nft.loaded"], "a second load changes nothing"


def test_without_ipv6_its_program_is_never_called(fs: FakeFilesystem) -> None:
    fs.remove(iptables.HAS_IPV6)
    host = Iptables()
    iptables.load(host, POLICY)
    assert [name for name, _ in host.inputs] == ["iptables-nft"]
    assert not os.path.exists(iptables.boot_path("nft", 6))


def test_a_load_mends_a_changed_chain_and_a_jump_that_is_not_first() -> None:
    host = Iptables(iptables_nft=RECORDED["iptables-nft.changed"])
    iptables.load(host, POLICY)
    listing = iptables.read(host, "nft", 4)
    assert listing.jump_is_first and listing.input[1] == "-A INPUT -p tcp -m tcp --dport 80 -j ACCEPT"
    assert iptables.drift(host, POLICY) == []


def test_a_restore_that_another_program_got_in_the_way_of_is_made_again() -> None:
    host = Iptables()
    host.refusals = iptables.ATTEMPTS - 1
    iptables.load(host, POLICY)
    assert len(host.inputs) == iptables.ATTEMPTS + 1, "the third of IPv4's, and IPv6's one"
    assert iptables.drift(host, POLICY) == []


def test_a_kernel_that_refuses_keeps_what_was_in_force_and_the_error_says_so() -> None:
    host = Iptables()
    before = dict(host.tables)
    host.refusals = iptables.ATTEMPTS
    with pytest.raises(SammyError, match=r"the IPv4 rules were not loaded.*RULE_REPLACE.*iptables-nft -S") as caught:
        iptables.load(host, POLICY)
    assert "what was in force before still is" in str(caught.value)
    assert host.tables == before and not os.path.exists(iptables.boot_path("nft", 4))


def test_a_kernel_that_holds_something_else_than_was_loaded_is_not_called_fine() -> None:
    host = Iptables()
    host.forgets = "-A SAMMY -p tcp -m tcp --dport 22 -j DROP"
    with pytest.raises(SammyError, match=r"the kernel holds something else: .*nobody else may reach ssh") as caught:
        iptables.load(host, POLICY)
    assert "`iptables-nft -S`" in str(caught.value)


def test_the_other_variants_leftovers_are_taken_away_by_a_load_and_are_a_difference_before(fs: FakeFilesystem) -> None:
    fs.create_file(foreign_rules.LEGACY_TABLES[4], contents="filter\nnat\n")
    host = Iptables(iptables_legacy=RECORDED["iptables-legacy.left"], **LOADED)
    keep_for_boot()
    assert iptables.drift(host, POLICY) == ["iptables-legacy holds a chain SAMMY too, though iptables is nft"]
    iptables.load(host, POLICY)
    assert host.tables["iptables-legacy"] == RECORDED["iptables-nft.empty"]
    assert iptables.drift(host, POLICY) == []


def test_each_difference_is_said(fs: FakeFilesystem) -> None:
    host = Iptables(**{**LOADED, "iptables_nft": RECORDED["iptables-nft.changed"]})
    keep_for_boot()
    assert iptables.drift(host, POLICY) == [
        "IPv4 INPUT jumps to SAMMY 2 times",
        "IPv4 chain SAMMY: rule missing: nobody else may reach agent port 8443 by udp",
    ]
    host = Iptables(iptables_nft=RECORDED["iptables-nft.loaded"])
    assert iptables.drift(host, POLICY)[-1] == "IPv6 chain SAMMY is missing: nothing it should guard is guarded"
    host = Iptables(**LOADED)
    boot_files.save(iptables.boot_path("nft", 6), "others\n")
    (said,) = iptables.drift(host, POLICY)
    assert (
        said
        == "/var/lib/sammy/firewall/ip6tables-nft.rules, which the next boot loads, holds other rules than the kernel"
    )


def test_the_trials_rules_go_into_the_kernel_alone() -> None:
    host = Iptables()
    iptables.load_in(host, POLICY)
    assert host.tables["iptables-nft"] == RECORDED["iptables-nft.loaded"]
    assert os.listdir(boot_files.FOLDER) == []


def test_a_lift_opens_the_port_before_every_rule_and_ends_by_itself() -> None:
    host = Iptables(**LOADED)
    iptables.lift(host, 8443, 1_893_456_000)
    for version in (4, 6):
        first = iptables.read(host, "nft", version).rules[0]
        assert re.fullmatch(r"-A SAMMY -p tcp --dport 8443 .*--datestop 2030-01-01T00:00:00 .* -j RETURN", first)


def test_unload_takes_everything_of_ours_and_nothing_else() -> None:
    host = Iptables(iptables_nft=RECORDED["iptables-nft.changed"], ip6tables_nft=RECORDED["ip6tables-nft.loaded"])
    keep_for_boot()
    assert iptables.present(host)
    iptables.unload(host)
    assert host.tables["iptables-nft"] == RECORDED["iptables-nft.empty"] + (
        "-A INPUT -p tcp -m tcp --dport 80 -c 0 0 -j ACCEPT\n"
    )
    assert host.tables["ip6tables-nft"] == RECORDED["ip6tables-nft.empty"]
    assert os.listdir(boot_files.FOLDER) == [] and not iptables.present(host)


def test_files_alone_are_something_of_ours_too(fs: FakeFilesystem) -> None:
    host = Iptables()
    fs.create_file(iptables.boot_path("legacy", 6))
    assert iptables.present(host)
    host.tables["ip6tables-legacy"] = RECORDED["ip6tables-nft.empty"]
    iptables.unload(host)
    assert not iptables.present(host) and host.inputs == []


def test_legacys_programs_are_not_asked_where_its_tables_do_not_exist() -> None:
    """Asking would make them, and from then on every iptables-nft warns of them."""
    host = Iptables(**LOADED)
    iptables.present(host)
    iptables.unload(host)
    assert not [call for call in host.calls if "legacy" in call[0]]


def test_status_counts_networks_and_what_was_dropped() -> None:
    counted = LOADED["iptables_nft"].replace("--dport 8443 -c 0 0 -j DROP", "--dport 8443 -c 3 180 -j DROP", 1)
    found = iptables.status(Iptables(**{**LOADED, "iptables_nft": counted}))
    assert (found["variant"], found["loaded"], found["kept_for_boot"]) == ("nft", True, False)
    assert found["networks"] == {"allow4": 2, "allow6": 1}
    assert found["dropped"]["IPv4 -A SAMMY -p tcp -m tcp --dport 8443 -j DROP"] == {"packets": 3, "bytes": 180}
    assert found["dropped"]["IPv6 -A SAMMY -p tcp -m tcp --dport 22 -j DROP"] == {"packets": 0, "bytes": 0}
    assert len(found["rules"]) == 15 and not iptables.status(Iptables())["loaded"]


def test_what_cannot_be_read_is_an_error_not_a_missing_chain() -> None:
    host = Iptables()
    del host.tables["iptables-nft"]
    host.script(["iptables-nft"], 4, stderr="Another app is currently holding the xtables lock\n")
    with pytest.raises(CommandFailed, match="xtables lock"):
        iptables.drift(host, POLICY)
