# SPDX-License-Identifier: Apache-2.0
"""The units under a running systemd: when the packages start, restart and stop them, and in which order they come."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cc_sammy import config
from cc_sammy.steps import metadata_block
from tests.firewall_config import METADATA
from tests.lab import Machine, debian
from tests.lab.shell import wait_until

pytestmark = pytest.mark.needs("root", "nspawn")

AGENT, FIREWALL = "sammy-agent.service", "sammy-firewall.service"
# What the boot steps have written where they ran.
AGENT_CONFIG = '{"node_id": null, "control_plane_url": null, "token_file": null, "ca_file": null, "port": 8443}\n'
RULES = {"applied": "add table inet sammy\n", "metadata": "add table inet sammy_metadata\n"}


@pytest.fixture(scope="module")
def machine(debs: dict[str, Path]) -> Iterator[Machine]:
    """A machine with the packages and without a sammy: key, once booted."""
    files = {f"/var/lib/sammy/firewall/{name}.nft": text for name, text in RULES.items()}
    files["/etc/sammy/agent.json"] = AGENT_CONFIG
    with Machine(
        "package", debian("bookworm"), "#cloud-config\n{}\n", extra_debs=[*debs.values()], files=files
    ) as made:
        made.start()
        ended = made.wait_cloud_init()
        assert ended.status == "done", ended.text
        yield made


def show(machine: Machine, unit: str, *properties: str) -> dict[str, str]:
    text = machine.run(["systemctl", "show", unit, f"--property={','.join(properties)}"]).stdout
    return dict(line.split("=", 1) for line in text.splitlines())


def tables(machine: Machine) -> list[str]:
    return machine.run(["nft", "list", "tables"]).stdout.split("\n")[:-1]


def install(machine: Machine, debs: dict[str, Path]) -> None:
    for deb in debs.values():
        with deb.open("rb") as file:
            command = [*machine.enter(), "sh", "-c", f"cat > /root/{deb.name}"]
            subprocess.run(command, stdin=file, check=True, timeout=60)
    machine.run(["sh", "-c", "dpkg --install /root/*.deb"], timeout=120)


def test_nothing_is_started_or_enabled_by_the_packages(machine: Machine) -> None:
    for unit in (AGENT, FIREWALL):
        state = show(machine, unit, "ActiveState", "UnitFileState")
        assert state == {"ActiveState": "inactive", "UnitFileState": "disabled"}, unit
    assert tables(machine) == []
    assert machine.run(["systemctl", "--failed", "--no-legend"]).stdout == ""
    assert re.search(r"Skipping modules .*\bsammy\b.* no applicable config", machine.read("/var/log/cloud-init.log"))


def test_running_agent_is_restarted_on_upgrade_and_a_stopped_one_is_not(
    machine: Machine, debs: dict[str, Path]
) -> None:
    install(machine, debs)
    assert show(machine, AGENT, "ActiveState") == {"ActiveState": "inactive"}
    machine.run(["systemctl", "start", AGENT])  # Type=notify: it has said that it is ready
    first = show(machine, AGENT, "InvocationID", "NRestarts")
    install(machine, debs)
    wait_until(lambda: show(machine, AGENT, "ActiveState")["ActiveState"] == "active", "the agent is back", 60)
    second = show(machine, AGENT, "InvocationID", "NRestarts")
    assert second["InvocationID"] != first["InvocationID"]
    assert second["NRestarts"] == "0"  # by dpkg, not after a crash


def test_hardened_agents_children_may_run_nft_and_read_the_journal(machine: Machine) -> None:
    unit = machine.read(f"/lib/systemd/system/{AGENT}")
    hardening = re.findall(r"^((?:CapabilityBoundingSet|Restrict\w+|Keyring\w+|SystemCall\w+)=.*)$", unit, re.M)
    assert len(hardening) == 5
    as_agent = ["systemd-run", "--quiet", "--wait", "--pipe", *(f"--property={line}" for line in hardening)]
    probe = "nft add table inet probe && nft delete table inet probe && journalctl -n 1 -o cat && ip -br link && id -u"
    assert machine.run([*as_agent, "sh", "-ec", probe]).stdout.endswith("\n0\n")
    assert machine.run([*as_agent, "date", "-s", "2020-01-01"], check=False).returncode == 1  # what it may not


PROBE = """
import socket, sys
for address in sys.argv[1:]:
    try:
        socket.create_connection((address, 80), timeout=2).close()
        print("reached")
    except OSError:
        print("refused")
"""


def test_a_root_process_in_the_containers_slice_does_not_reach_the_metadata_address(machine: Machine) -> None:
    """A container on the host's network is such a process: the slice is its cgroup's parent."""
    folder = os.path.dirname(metadata_block.DROP_IN)
    serve = "socket.create_server(('::', 80), family=socket.AF_INET6, dualstack_ipv6=True)"
    wait = "import socket, signal; listening = " + serve + "; signal.pause()"
    machine.run(["mkdir", "-p", folder])
    machine.run(["sh", "-ec", f"cat > {metadata_block.DROP_IN}"], input=metadata_block.drop_in(config.load({})))
    machine.run(["sh", "-ec", "".join(f"ip addr add {one} dev lo;" for one in METADATA)])
    machine.run(["systemd-run", "--quiet", "--unit=metadata", "python3", "-c", wait])
    machine.run(["systemctl", "daemon-reload"])
    probe = ["systemd-run", "--quiet", "--wait", "--pipe"]
    words = ["python3", "-c", PROBE, *METADATA, "127.0.0.1"]
    try:
        wait_until(lambda: machine.run([*probe, *words]).stdout.split() == ["reached"] * 3, "the server", 30)
        inside = machine.run([*probe, "--slice=sammy-containers.slice", *words]).stdout.split()
        assert inside == ["refused", "refused", "reached"]
    finally:
        machine.run(["systemctl", "stop", "metadata", "sammy-containers.slice"])
        machine.run(["rm", "-r", folder])


def test_boot_orders_the_firewall_before_the_network_and_after_nftables(machine: Machine) -> None:
    machine.run(["systemctl", "enable", "--quiet", FIREWALL, "nftables.service"])
    machine.poweroff()
    machine.start()
    assert machine.wait_cloud_init().status == "done"
    assert set(tables(machine)) >= {"table inet sammy", "table inet sammy_metadata"}
    stamp = "ActiveEnterTimestampMonotonic"
    order = [int(show(machine, unit, stamp)[stamp]) for unit in ("nftables.service", FIREWALL, "network-pre.target")]
    assert 0 < order[0] < order[1] < order[2]
    assert not [entry for entry in machine.journal("-b", "_PID=1") if "ordering cycle" in str(entry["MESSAGE"])]
    assert machine.run(["systemctl", "--failed", "--no-legend"]).stdout == ""


def test_handlers_link_is_made_before_cloud_init_validates(machine: Machine) -> None:
    machine.run(["rm", "-rf", "/var/lib/cloud/handlers"])  # as `cloud-init clean` does
    machine.poweroff()
    machine.start()
    assert machine.wait_cloud_init().status == "done"
    boots = machine.read("/var/log/cloud-init.log").split("running 'init-local'")
    assert "text/x-sammy-config" in boots[-1]
    # Here the one is always quick enough; a slow disk must not turn it round.
    assert "systemd-tmpfiles-setup.service" in show(machine, "cloud-init.service", "After")["After"].split()


def test_restart_of_nftables_brings_our_tables_back(machine: Machine) -> None:
    machine.run(["systemctl", "restart", "nftables.service"])
    wait_until(lambda: set(tables(machine)) >= {"table inet sammy", "table inet sammy_metadata"}, "the tables", 30)


def test_removal_stops_the_agent_and_lifts_the_rules(machine: Machine) -> None:
    machine.run(["systemctl", "enable", "--quiet", "--now", AGENT])
    said = machine.run(["dpkg", "--remove", "cloud-init-sammy", "sammy-agent", "sammy-common"], timeout=120).stdout
    assert "firewall lifted" in said
    assert machine.run(["pgrep", "-f", "/usr/bin/sammy-agent"], check=False).returncode == 1
    assert not [table for table in tables(machine) if "sammy" in table]
    machine.poweroff()
    machine.start()
    ended = machine.wait_cloud_init()
    assert (ended.returncode, ended.status) == (0, "done"), ended.text
    assert machine.run(["systemctl", "--failed", "--no-legend"]).stdout == ""
