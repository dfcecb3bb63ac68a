# SPDX-License-Identifier: Apache-2.0
"""The firewall beside a real dockerd that starts, stops and starts again: neither takes the other's rules away."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cc_sammy.firewall import enforce, lock, metadata_table
from cc_sammy.firewall.model import networks
from cc_sammy.firewall.model import policy as policy_module
from tests.firewall_config import METADATA
from tests.network.docker import Docker
from tests.network.firewall_lab import AGENT, BACKENDS, METADATA4, Lab, MachineHost, inside

pytestmark = pytest.mark.needs("root", "dockerd")

POLICY = policy_module.Policy(AGENT, *networks.parse(["10.91.1.0/24", "fd91:1::/64"], "test"), ssh="drop")
REACHED, DROPPED = ("reached", "reached"), ("dropped", "dropped")
BRIDGE = "172.17.0.1"
CONTAINER = "172.17.0.99"


@pytest.fixture
def vm(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MachineHost]:
    monkeypatch.setattr(lock, "LOCK", str(tmp_path / "firewall.lock"))
    with inside(lab.names["vm"], str(tmp_path)):
        yield MachineHost(lab.names["vm"])
    lab.clear()


@pytest.fixture
def docker(lab: Lab) -> Iterator[Docker]:
    with Docker(lab.names["vm"]) as made:
        yield made
    lab.sh("vm", "ip link del docker0")


@pytest.fixture
def container(lab: Lab, docker: Docker) -> Iterator[str]:
    """What Docker makes for a container: a namespace with a wire into docker0. The lab calls it a machine's role."""
    name = lab.names["container"] = f"{lab.names['vm']}-container"
    docker.start()
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        wire = f"ip link add veth-c netns {lab.names['vm']} type veth peer name eth0 netns {name}"
        subprocess.run(wire.split(), check=True)
        lab.sh("vm", "ip link set veth-c master docker0 up")
        lab.sh(
            "container", f"ip addr add {CONTAINER}/16 dev eth0; ip link set eth0 up; ip route add default via {BRIDGE}"
        )
        yield "container"
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)
        del lab.names["container"]


def of_docker(lab: Lab) -> list[str]:
    """Return Docker's own rules, without their counters."""
    saved = lab.sh("vm", "iptables-nft-save; ip6tables-nft-save").splitlines()
    own = [line for line in saved if line.startswith("-A") and ("DOCKER" in line or "docker0" in line)]
    return sorted(line for line in own if not line.startswith("-A SAMMY"))


def assert_guarded(lab: Lab, vm: MachineHost, policy: policy_module.Policy) -> None:
    assert enforce.check(vm, policy) == []
    assert (lab.reach("vm", AGENT), lab.reach("edge", AGENT)) == (REACHED, REACHED)
    assert lab.reach("stranger", AGENT) == DROPPED
    assert lab.connect("container", BRIDGE, AGENT) == "reached"


@pytest.mark.parametrize("name", BACKENDS)
def test_docker_starts_over_our_rules_and_we_apply_over_its(
    lab: Lab, vm: MachineHost, docker: Docker, container: str, name: str
) -> None:
    vm.variant = name.removeprefix("iptables-")
    policy = POLICY._replace(backend=name.partition("-")[0])
    before = of_docker(lab)
    assert any("MASQUERADE" in line for line in before)  # dockerd did write rules
    enforce.apply(vm, policy)
    assert_guarded(lab, vm, policy)
    assert of_docker(lab) == before
    docker.stop()
    assert_guarded(lab, vm, policy)
    docker.start()
    assert_guarded(lab, vm, policy)
    assert of_docker(lab) == before
    enforce.remove(vm)
    assert of_docker(lab) == before
    assert lab.connect("container", BRIDGE, AGENT) == "reached"


# What dockerd 29 makes with "firewall-backend": "nftables" (its documentation): Debian's dockerd has no such backend.
NFTABLES_BACKEND = """
add table ip docker-bridges
delete table ip docker-bridges
add table ip docker-bridges
add chain ip docker-bridges filter-FORWARD { type filter hook forward priority filter; policy accept; }
add chain ip docker-bridges nat-POSTROUTING { type nat hook postrouting priority srcnat; policy accept; }
add rule ip docker-bridges filter-FORWARD iifname docker0 counter accept
add rule ip docker-bridges nat-POSTROUTING iifname docker0 oifname != docker0 counter masquerade
"""


def test_the_metadata_address_stays_closed_beside_tables_as_dockers_nftables_backend_makes_them(
    lab: Lab, vm: MachineHost, container: str
) -> None:
    vm.run(["nft", "-f", "-"], input=NFTABLES_BACKEND)
    assert lab.connect("container", METADATA4, 80) == "reached"
    metadata_table.apply(vm, METADATA, True)
    enforce.apply(vm, POLICY)
    for _ in range(2):  # made anew, as at Docker's restart
        assert lab.connect("container", METADATA4, 80, seconds=1) == "dropped"
        assert metadata_table.is_in_force(vm, METADATA, True)
        assert_guarded(lab, vm, POLICY)
        vm.run(["nft", "-f", "-"], input=NFTABLES_BACKEND)


def test_the_metadata_address_stays_closed_to_containers_over_dockers_restart(
    lab: Lab, vm: MachineHost, docker: Docker, container: str
) -> None:
    assert lab.connect("container", METADATA4, 80) == "reached"
    metadata_table.apply(vm, METADATA, True)
    for _ in range(2):
        assert lab.connect("container", METADATA4, 80) == "dropped"
        assert lab.connect("vm", METADATA4, 80) == "reached"
        docker.stop()
        docker.start()
        assert metadata_table.is_in_force(vm, METADATA, True)
