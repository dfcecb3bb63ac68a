# SPDX-License-Identifier: Apache-2.0
"""Options that change what apt, dockerd, journald and the kernel do, asked of these; and each undone by one variable.

docker-ce and NodeSource's nodejs are not in Debian's archive: docker.io under that name and a script take their places,
in a repository with a key of its own. The tests look at one machine in the order of the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cc_sammy.contract.run_record import Outcome, RunRecord, Status
from tests.lab import Base, Machine, Network, Sources, repository
from tests.lab.network import ALLOWED
from tests.lab.shell import run
from tests.vm.boots import AGAIN, state

pytestmark = pytest.mark.needs("root", "nspawn")

DOCKER_CE = ("containerd.io", "docker-ce", "docker-ce-cli")
OTHERS = (*DOCKER_CE, "nodejs")
KEY = "/etc/apt/keyrings/debian-archive-lab.asc"
# The distribution's own entry: nothing answers at its address.
ENTRY = f"deb [signed-by={KEY}] http://192.0.2.77/debian stable main\n"
SOURCES_LIST, DROP_IN = "/etc/apt/sources.list", "/etc/systemd/journald.conf.d/60-sammy.conf"
UNDONE = {
    "SAMMY_DOCKER_DNS": "",
    "SAMMY_DOCKER_LOG_TAG": "",
    "SAMMY_FIREWALL_ENABLED": "false",
    "SAMMY_JOURNALD_STORAGE": "keep",
    "SAMMY_METADATA_BLOCK_ENABLED": "false",
    "SAMMY_PACKAGES_UNATTENDED_UPGRADES": "keep",
}


@dataclass
class Chosen:
    """The machine, booted with every option, and its first run."""

    machine: Machine
    first: RunRecord

    def again(self) -> RunRecord:
        self.machine.run(AGAIN, check=False, timeout=120)
        record = state(self.machine)
        assert (record.outcome, record.reason) == (Outcome.READY, "")
        return record

    def docker(self, *words: str) -> str:
        return self.machine.run(["docker", *words]).stdout.strip()


def others(directory: Path, pool: Path) -> list[Path]:
    """Make the packages of the other publishers."""
    real = directory / "docker-ce"
    run(["dpkg-deb", "--raw-extract", next(pool.glob("docker.io_*.deb")), real])
    control = real / "DEBIAN/control"
    kept = [line for line in control.read_text().splitlines() if not line.startswith(("Package:", "Conflicts:"))]
    control.write_text("\n".join(["Package: docker-ce", *kept]) + "\n")
    for name in ("docker-ce-cli", "containerd.io", "nodejs"):
        about = directory / name / "DEBIAN/control"
        about.parent.mkdir(parents=True)
        about.write_text(f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: lab <lab@localhost>\n"
                         "Description: stands for the real one\n")  # fmt: skip
    node = directory / "nodejs/usr/bin/node"
    node.parent.mkdir(parents=True)
    node.write_text("#!/bin/sh\necho v99.0.0\n")
    node.chmod(0o755)
    debs = [directory / f"{name}_1_all.deb" for name in OTHERS]
    for name, deb in zip(OTHERS, debs, strict=True):
        run(["dpkg-deb", "--root-owner-group", "-Znone", "--build", directory / name, deb])
    return debs


def options(sources: Sources, own_apt: dict[str, Any]) -> dict[str, Any]:
    registry = sources.daemon["insecure-registries"][0]
    return {
        "packages": {"install": ["jq"], "mirror": sources.url("/apt"), "unattended_upgrades": "off"},
        "docker": {
            "source": "docker-ce",
            "apt": own_apt,
            "dns": ["192.0.2.53"],
            "log_tag": "lab/{{.Name}}",
            "address_pools": ["172.30.0.0/16:24"],
            "registry_mirrors": [f"http://{registry}"],
            "live_restore": True,
        },
        "image_prepull": {"images": ["busybox:1"], "required": True},
        "nodejs": {"source": "nodesource", "apt": own_apt},
        "devcontainer_cli": {"source": "none"},
        "journald": {"system_max_use": "200M"},
        "firewall": {"allow": list(ALLOWED)},
    }


@pytest.fixture(scope="module")
def chosen(tree: Base, debs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chosen]:
    folder = tmp_path_factory.mktemp("stubs")
    image = [deb for deb in debs if not deb.name.startswith("sammy-agent")]
    with Network("options") as network, Sources(network, tree, debs=debs) as sources:
        made = others(folder, sources.directory / "www/apt/pool")
        key = repository.make(sources.directory / "www/others", made)
        about = {**sources.apt, "uri": sources.url("/others"), "key": key}
        files = {KEY: sources.apt["key"], SOURCES_LIST: ENTRY}
        user_data = {"sammy": options(sources, about), "users": [{"name": "workspace"}]}
        with Machine("options", tree, user_data, extra_debs=image, network=network, files=files) as machine:
            machine.start()
            ended = machine.wait_cloud_init(300)
            assert ended.status == "done", ended.text
            yield Chosen(machine, state(machine))


def test_the_node_is_ready_and_docker_was_never_restarted(chosen: Chosen) -> None:
    assert (chosen.first.outcome, chosen.first.reason) == (Outcome.READY, "")
    assert chosen.first.step("docker-restart").status is Status.SKIPPED
    started = chosen.machine.journal("-u", "docker.service", "JOB_TYPE=start", "JOB_RESULT=done")
    assert len(started) == 1


def test_packages_come_from_the_mirror_and_the_machines_own_sources_stay(chosen: Chosen) -> None:
    machine = chosen.machine
    assert machine.run(["jq", "--version"]).stdout.startswith("jq-")
    assert machine.read(SOURCES_LIST) == ENTRY
    assert [name for name in machine.run(["ls", "/var/lib/apt/lists"]).stdout.split() if "_apt_" in name] == []


def test_nodejs_comes_from_nodesources_repository(chosen: Chosen) -> None:
    assert chosen.machine.run(["node", "--version"]).stdout == "v99.0.0\n"
    assert chosen.first.step("packages").status is Status.COMPLETED
    history = chosen.machine.read("/var/log/apt/history.log")
    assert history.count("DPkg::Lock::Timeout=300") == 1, "one transaction for all"


def test_docker_ce_comes_from_its_own_repository_with_its_own_key(chosen: Chosen) -> None:
    shown = chosen.machine.run(["dpkg-query", "-W", "-f=${Package} ${db:Status-Status}\n", *DOCKER_CE]).stdout
    assert sorted(shown.splitlines()) == [f"{name} installed" for name in DOCKER_CE]
    other = chosen.machine.run(["dpkg-query", "-W", "-f=${db:Status-Status}", "docker.io"], check=False).stdout
    assert other != "installed"
    entries = chosen.machine.run(["sh", "-c", "cat /etc/apt/sources.list.d/sammy-*.list"]).stdout
    assert "/others stable main" in entries and "signed-by=/etc/apt/keyrings/sammy-" in entries
    assert "workspace" in chosen.machine.run(["getent", "group", "docker"]).stdout


def test_dockerd_has_taken_every_option(chosen: Chosen) -> None:
    info = json.loads(chosen.docker("info", "--format", "{{json .}}"))
    assert [mirror.startswith("http://10.") for mirror in info["RegistryConfig"]["Mirrors"]] == [True]
    assert (info["LiveRestoreEnabled"], info["LoggingDriver"]) == (True, "journald")
    assert info["DefaultAddressPools"] == [{"Base": "172.30.0.0/16", "Size": 24}]
    chosen.docker("network", "create", "another")
    assert chosen.docker("network", "inspect", "another", "-f", "{{(index .IPAM.Config 0).Subnet}}").startswith(
        "172.30."
    )
    resolver = chosen.docker("run", "--rm", "busybox:1", "cat", "/etc/resolv.conf")
    assert "nameserver 192.0.2.53" in resolver


def test_the_image_came_by_the_mirror_and_its_digest_is_recorded(chosen: Chosen) -> None:
    progress = chosen.machine.journal("-t", "sammy", "SAMMY_STEP=image-prepull", "--grep=1 of 1 layers")
    assert [entry["MESSAGE"].partition(":")[0] for entry in progress] == ["busybox"]
    digest = chosen.first.step("image-prepull").results["busybox:1"]
    assert digest.startswith("sha256:")
    assert f"busybox@{digest}" in chosen.docker("image", "inspect", "busybox:1", "-f", "{{json .RepoDigests}}")


def test_a_containers_lines_are_in_the_journal_under_the_tag(chosen: Chosen) -> None:
    chosen.docker("run", "--name", "speaks", "busybox:1", "echo", "from inside")
    said = chosen.machine.journal("CONTAINER_TAG=lab/speaks")
    assert [entry["MESSAGE"] for entry in said] == ["from inside"]


def test_daily_upgrades_are_off_and_the_journal_is_bounded(chosen: Chosen) -> None:
    shown = chosen.machine.run(["apt-config", "dump", "APT::Periodic"]).stdout
    assert 'APT::Periodic::Unattended-Upgrade "0";' in shown
    assert "SystemMaxUse=200M" in chosen.machine.read(DROP_IN)


def test_what_is_taken_back_waits_for_the_containers_and_then_is_gone(chosen: Chosen) -> None:
    machine = chosen.machine
    container = chosen.docker("run", "--detach", "busybox:1", "sleep", "1000")
    begun = chosen.docker("inspect", container, "-f", "{{.State.StartedAt}}")
    daemon = machine.run(["systemctl", "show", "docker", "--property=InvocationID"]).stdout
    variables = "".join(f"{name}={value}\n" for name, value in UNDONE.items())
    machine.run(["sh", "-ec", "cat > /etc/default/sammy"], input=variables)
    record = chosen.again()
    assert record.step("docker-restart").reason.startswith("1 containers run")
    assert chosen.docker("inspect", container, "-f", "{{.State.StartedAt}}") == begun
    assert machine.run(["systemctl", "show", "docker", "--property=InvocationID"]).stdout == daemon
    # Nothing of ours is left where a variable took it back.
    assert "sammy" not in machine.run(["nft", "list", "tables"]).stdout
    assert not machine.exists(DROP_IN)
    assert "52sammy" not in machine.run(["ls", "/etc/apt/apt.conf.d"]).stdout
    assert machine.run(["systemctl", "is-enabled", "sammy-firewall"], check=False).stdout == "disabled\n"
    # Without containers Docker is restarted, once, and has not the options any more.
    chosen.docker("rm", "--force", container)
    assert chosen.again().step("docker-restart").status is Status.COMPLETED
    assert "192.0.2.53" not in chosen.docker("run", "--rm", "busybox:1", "cat", "/etc/resolv.conf")
    last = chosen.again()
    assert {step.name: step.reason for step in last.steps if step.status is not Status.SKIPPED} == {}


def test_what_is_wanted_again_comes_back(chosen: Chosen) -> None:
    chosen.machine.run(["rm", "/etc/default/sammy"])
    chosen.again()
    assert {"sammy", "sammy_metadata"} <= set(chosen.machine.run(["nft", "list", "tables"]).stdout.split())
    assert chosen.machine.exists(DROP_IN)
