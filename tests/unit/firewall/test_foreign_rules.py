# SPDX-License-Identifier: Apache-2.0
"""Rules of others, from what the real programs printed: what is told, and the one trap that is opened unasked."""

from __future__ import annotations

import pytest
from pyfakefs.fake_filesystem import FakeFilesystem

from cc_sammy.errors import CommandFailed
from cc_sammy.firewall import boot_files
from cc_sammy.firewall.backends import foreign_rules
from cc_sammy.firewall.model import iptables_chain
from cc_sammy.host.fake import FakeHost
from tests.unit.firewall.fake_iptables import EMPTY, RECORDED, Iptables

TRAP = iptables_chain.parse(RECORDED["iptables-legacy.trap"])


@pytest.fixture(autouse=True)
def machine(fs: FakeFilesystem) -> None:
    fs.create_dir(boot_files.FOLDER)


def legacy(fs: FakeFilesystem) -> None:
    """Have the kernel hold legacy's filter table of IPv4."""
    fs.create_file(foreign_rules.LEGACY_TABLES[4], contents="nat\nfilter\n")


def others(**tables: str) -> Iptables:
    """Return a machine with ufw, firewalld, an nft chain of somebody's, and INPUT closed."""
    host = Iptables(**{"iptables_nft": RECORDED["iptables-nft.closed"], **tables})
    host.script(["nft", "--json", "list", "chains"], stdout=RECORDED["chains-of-others.json"])
    return host


@pytest.mark.parametrize("length", range(6))
def test_a_script_that_died_anywhere_left_the_trap_too(length: int) -> None:
    assert foreign_rules.is_legacy_trap("DROP", TRAP.input[:length])


@pytest.mark.parametrize(
    ("policy", "rules"),
    [
        ("ACCEPT", TRAP.input),
        ("DROP", TRAP.input[::-1]),
        ("DROP", (*TRAP.input, "-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT")),
        ("DROP", (*TRAP.input, "-A INPUT -s 10.0.0.0/8 -p tcp -m tcp --dport 8443 -j DROP")),
        ("DROP", (*TRAP.input, "-A INPUT -i eth0 -j ACCEPT")),
    ],
    ids=["open", "another order", "ssh", "drops", "another interface"],
)
def test_a_persons_rules_are_not_taken_for_the_trap(policy: str, rules: tuple[str, ...]) -> None:
    assert not foreign_rules.is_legacy_trap(policy, rules)


def test_the_trap_is_opened_unasked_and_the_note_says_why(fs: FakeFilesystem) -> None:
    legacy(fs)
    host = Iptables(iptables_legacy=RECORDED["iptables-legacy.trap"])
    notes = foreign_rules.open_input(host, "keep", foreign_rules.inspect(host))
    assert notes == [
        "IPv4 INPUT (iptables-legacy): policy set from DROP to ACCEPT: it was the trap of an old firewall script"
    ]
    assert host.tables["iptables-legacy"] == RECORDED["iptables-legacy.trap"].replace("INPUT DROP", "INPUT ACCEPT")
    assert foreign_rules.open_input(host, "keep", foreign_rules.inspect(host)) == []


def test_our_jump_does_not_hide_the_trap(fs: FakeFilesystem) -> None:
    legacy(fs)
    head, _, rest = RECORDED["iptables-legacy.trap"].partition("-A INPUT")
    host = Iptables(iptables_legacy=f"{head}-N SAMMY\n-A INPUT -c 0 0 -j SAMMY\n-A INPUT{rest}")
    (closed,) = foreign_rules.inspect(host).drop_policies(host)
    assert closed == foreign_rules.DropPolicy("legacy", 4, True)


def test_a_closed_input_of_somebody_stays_and_is_told_unless_the_operator_wants_it_open() -> None:
    host = others()
    (note,) = foreign_rules.open_input(host, "keep", foreign_rules.inspect(host))
    assert note.startswith("IPv4 INPUT (iptables-nft) has policy DROP") and "firewall.input_policy: accept" in note
    assert host.tables["iptables-nft"] == RECORDED["iptables-nft.closed"]
    notes = foreign_rules.open_input(host, "accept", foreign_rules.inspect(host))
    assert notes == ["IPv4 INPUT (iptables-nft): policy set from DROP to ACCEPT"]
    assert ("iptables-nft", "-w", "10", "-P", "INPUT", "ACCEPT") in host.calls
    assert "-P INPUT ACCEPT" in host.tables["iptables-nft"]


def test_other_firewalls_are_named_with_how_they_are_opened() -> None:
    ufw, firewalld = foreign_rules.warnings(9443, foreign_rules.inspect(others()))
    assert ufw == (
        "ufw is active and may still drop tcp 9443 from allowed networks; `ufw allow 9443/tcp` opens it there"
    )
    assert "`firewall-cmd --permanent --add-port=9443/tcp`" in firewalld
    assert foreign_rules.warnings(9443, foreign_rules.inspect(Iptables())) == []


def test_ufw_of_legacy_is_seen_too(fs: FakeFilesystem) -> None:
    legacy(fs)
    host = Iptables(iptables_legacy=RECORDED["iptables-legacy.ufw"])
    assert foreign_rules.inspect(host).active() == ["ufw"]


def test_status_says_what_others_close() -> None:
    assert foreign_rules.status(others()) == {
        "closed_elsewhere": ["ip filter INPUT", "inet mine in"],
        "input_policy_drop": ["IPv4 INPUT (iptables-nft)"],
        "other_firewalls": ["ufw", "firewalld"],
    }


@pytest.mark.parametrize(("status", "printed"), [(1, ""), (127, ""), (0, "")], ids=["refused", "no nft", "nothing"])
def test_without_nft_nothing_of_others_is_known_and_nothing_breaks(status: int, printed: str) -> None:
    host = Iptables()
    host.script(["nft"], status, stdout=printed)
    assert foreign_rules.inspect(host) == foreign_rules.ForeignRules(None, None, None)
    assert foreign_rules.status(host)["closed_elsewhere"] == []


def test_legacy_is_read_only_where_its_table_is(fs: FakeFilesystem) -> None:
    fs.create_file(foreign_rules.LEGACY_TABLES[6], contents="mangle\n")
    host = Iptables()
    foreign_rules.inspect(host)
    assert not [call for call in host.calls if "legacy" in call[0]]


def test_legacy_that_cannot_be_read_is_passed_over(fs: FakeFilesystem) -> None:
    legacy(fs)
    host = FakeHost()
    host.script(["iptables-legacy"], 127)
    assert foreign_rules.inspect(host).legacy4 is None


def test_a_backend_that_is_not_in_use_may_hold_something_in_the_kernel_or_on_the_disk(fs: FakeFilesystem) -> None:
    found = foreign_rules.inspect(Iptables())  # the records' chains are iptables-nft's
    assert found.may_hold("iptables") and not found.may_hold("nftables")
    none = foreign_rules.inspect(others())
    assert not none.may_hold("iptables")
    fs.create_file(f"{boot_files.FOLDER}/applied.nft")
    assert none.may_hold("nftables") and not none.may_hold("iptables")


def test_legacys_chain_of_ours_counts_as_held(fs: FakeFilesystem) -> None:
    legacy(fs)
    assert foreign_rules.inspect(others(iptables_legacy=RECORDED["iptables-legacy.left"])).may_hold("iptables")
    assert not foreign_rules.inspect(others(iptables_legacy=EMPTY)).may_hold("iptables")


def test_an_input_policy_that_iptables_refuses_to_change_is_an_error() -> None:
    host = FakeHost()
    host.script(["iptables-nft", "-w", "10", "-v", "-S"], stdout=RECORDED["iptables-nft.closed"])
    host.script(["iptables-nft", "-w", "10", "-P"], 4, stderr="Permission denied (you must be root)")
    host.script(["nft", "--json", "list", "chains"], stdout=RECORDED["chains-of-others.json"])
    with pytest.raises(CommandFailed, match="you must be root"):
        foreign_rules.open_input(host, "accept", foreign_rules.inspect(host))
