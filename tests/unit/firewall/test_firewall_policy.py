# SPDX-License-Identifier: Apache-2.0
"""From configuration to policy, and the command's answers, over a fake file system and scripted commands."""

from __future__ import annotations

import argparse
import json
import os

import pytest
from pyfakefs.fake_filesystem import FakeFilesystem

from cc_sammy.common import files
from cc_sammy.contract.firewall_config import FirewallConfig
from cc_sammy.errors import SammyError
from cc_sammy.firewall import boot_files, commands, dry_run, enforce
from cc_sammy.firewall.backends import nftables
from cc_sammy.firewall.model import networks, policy
from cc_sammy.host.fake import FakeHost
from tests.firewall_config import firewall_config
from tests.unit.fake_files import lay_out

ROUTES4 = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
br-lan\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
"""
ZERO = "0" * 32
ROUTES6 = f"""\
{ZERO} 00 {ZERO} 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth1
{ZERO} 00 {ZERO} 00 {ZERO} ffffffff 00000001 00000000 00200200       lo
"""


def config(allow: str | tuple[str, ...] = "cloudflare", ssh: str | tuple[str, ...] = "drop") -> FirewallConfig:
    return firewall_config(allow=allow, ssh=ssh)


@pytest.fixture(autouse=True)
def kernel(fs: FakeFilesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out(fs, {policy.PORT_RANGE: "32768\t60999\n", policy.ROUTES4: ROUTES4, policy.ROUTES6: ROUTES6})
    monkeypatch.setattr(dry_run, "check_once", lambda *_: [])  # it is held in the real kernel: tests/network


@pytest.fixture
def host() -> FakeHost:
    return FakeHost()


def absent(host: FakeHost) -> None:
    host.script(["nft", "--json"], 1, stderr="Error: No such file or directory\n")


def test_uplinks_are_the_default_routes_interfaces() -> None:
    assert policy.uplinks() == ("br-lan", "eth1")


def test_ssh_closes_once_the_node_is_acknowledged() -> None:
    assert policy.from_config(config(), 8443).ssh == "open"
    files.write_text(policy.READY, "")
    assert policy.from_config(config(), 8443).ssh == "drop"
    assert policy.from_config(config(ssh="open"), 8443).ssh == "open"


def test_drop_always_does_not_wait() -> None:
    assert policy.from_config(config(ssh="drop-always"), 8443).ssh == "drop"


def test_ssh_for_networks() -> None:
    found = policy.from_config(config(ssh=("192.0.2.0/24",)), 8443)
    assert (found.ssh, [str(network) for network in found.ssh4]) == ("networks", ["192.0.2.0/24"])


def test_ssh_for_the_same_networks_as_the_agents_port() -> None:
    found = policy.from_config(config(ssh="ranges", allow=("192.0.2.0/24", "2001:db8::/32")), 8443)
    assert (found.ssh, found.ssh4, found.ssh6) == ("networks", found.allow4, found.allow6)
    assert policy.from_config(config(ssh="ranges", allow="any"), 8443).ssh == "open"


def test_any_and_networks_are_told_apart() -> None:
    assert policy.from_config(config(allow="any"), 8443).allow_any
    found = policy.from_config(config(allow=("cloudflare", "192.0.2.0/24")), 8443)
    assert (found.allow_any, len(found.allow4), len(found.allow6)) == (False, 16, 7)


@pytest.mark.parametrize("port", [32768, 50000, 60999])
def test_a_port_of_the_local_range_is_refused(port: int) -> None:
    with pytest.raises(SammyError) as caught:
        policy.from_config(config(), port)
    assert f"agent.port {port}" in str(caught.value)
    assert "32768-60999" in str(caught.value)


def test_a_refused_load_keeps_the_file_of_before(host: FakeHost) -> None:
    files.write_text(nftables.APPLIED, "before")
    host.script(["nft", "-f"], 1, stderr="Error: Could not process rule\n")
    with pytest.raises(SammyError, match="what was in force before still is"):
        enforce.apply(host, policy.Policy(8443, allow_any=True))
    assert files.read_text(nftables.APPLIED) == "before"


def test_a_kernel_without_the_rules_after_loading_is_an_error(host: FakeHost) -> None:
    absent(host)
    with pytest.raises(SammyError, match="kernel holds something else: table inet sammy is not loaded"):
        enforce.apply(host, policy.Policy(8443, allow_any=True))
    assert os.stat(nftables.APPLIED).st_mode & 0o777 == 0o600
    assert "delete table" not in (files.read_text(nftables.APPLIED) or "")


def test_nft_missing_is_an_error_and_not_an_absent_table(host: FakeHost) -> None:
    host.script(["nft"], 127, stderr="[Errno 2] No such file or directory: 'nft'")
    with pytest.raises(SammyError):
        enforce.check(host, policy.Policy(8443, allow_any=True))


def test_remove_persists(host: FakeHost) -> None:
    files.write_text(nftables.APPLIED, "rules")
    enforce.remove(host)
    assert boot_files.is_removed()
    assert not os.path.exists(nftables.APPLIED)


def run(words: list[str], host: FakeHost, chosen: FirewallConfig | None = None) -> int:
    parser = argparse.ArgumentParser()
    commands.add_parser(parser.add_subparsers())
    return commands.run(parser.parse_args(["firewall", *words]), host, chosen or config(), 8443)


def test_check_says_drift_with_the_next_step(host: FakeHost, capsys: pytest.CaptureFixture[str]) -> None:
    absent(host)
    assert run(["check", "--json"], host) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["problems"] == ["table inet sammy is not loaded: nothing it should guard is guarded"]
    assert answer["next_step"] == "sammy firewall apply"


def test_check_after_remove_says_so(host: FakeHost, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["remove"], host) == 0
    assert run(["check"], host) == 1
    assert "removed by hand" in capsys.readouterr().out


def test_errors_go_to_stderr_with_status_1(host: FakeHost, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["apply"], host, firewall_config(enabled=False, allow="any", ssh="open")) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "firewall.enabled is false" in captured.err


def test_wrong_usage_is_status_2(host: FakeHost) -> None:
    with pytest.raises(SystemExit) as caught:
        run(["nonsense"], host)
    assert caught.value.code == 2


def test_the_backend_and_published_ports_reach_the_policy() -> None:
    chosen = firewall_config(published_ports="allowed-only")
    assert policy.from_config(chosen, 8443).guard_published
    wrong = firewall_config(backend="iptables", published_ports="allowed-only")
    with pytest.raises(SammyError, match=r"needs firewall\.backend nftables"):
        policy.from_config(wrong, 8443)


def test_the_fetched_list_is_used_when_it_is_good() -> None:
    files.write_text(networks.FETCHED, json.dumps({"networks": ["198.41.128.0/17", "2400:cb00::/32"]}))
    found = policy.from_config(config(), 8443)
    assert [str(network) for network in (*found.allow4, *found.allow6)] == ["198.41.128.0/17", "2400:cb00::/32"]
    files.write_text(networks.FETCHED, json.dumps({"networks": ["198.41.128.0/17", "<html>"]}))
    assert len(policy.from_config(config(), 8443).allow4) == 15
