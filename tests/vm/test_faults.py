# SPDX-License-Identifier: Apache-2.0
"""Bad input and a bad world: said once and plainly in three places, and the box stays reachable."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from cc_sammy.contract.run_record import Status
from tests.lab import Base
from tests.vm.boots import BARE, Boot, bare_boot, listen, reaches

pytestmark = pytest.mark.needs("root", "nspawn")

PLANE = {"url": "https://192.0.2.1:8787", "token_file": "/etc/sammy/no-such-token"}
MIRROR = {"uri": "http://192.0.2.9/debian", "suite": "stable", "key": "-----BEGIN PGP PUBLIC KEY BLOCK-----\nx\n"}
BAD_INPUT: dict[str, tuple[dict[str, Any], str]] = {
    "unknown-key": ({"stepz": 1}, "sammy has no option stepz; allowed are "),
    "wrong-type": ({"max_parallel": "many"}, 'sammy.max_parallel is "many"; allowed is a value of type integer'),
    "port-0": ({"agent": {"port": 0}}, "sammy.agent.port is 0; allowed is 1 or more"),
    "port-in-range": ({"agent": {"port": 40000}}, "sammy.agent.port is 40000; allowed is a port outside the kernel's"),
    "no-token": ({"control_plane": PLANE}, 'sammy.control_plane.token_file is "/etc/sammy/no-such-token"'),
    "two-at-once": ({"stepz": 1, "agent": {"port": 0}}, "has 2 problems"),
}
# An address that the machine has itself: what listens there is the test's own server of wrong bytes.
WRONG_BYTES = {"source": "url", "url": "http://127.0.0.1:8/sammy-agent.deb", "sha256": "0" * 64}
BAD_WORLD: dict[str, tuple[dict[str, Any], str, str]] = {
    "wrong-sha256": ({"agent": WRONG_BYTES}, "agent-install", "Hash Sum mismatch"),
    "unreachable-mirror": ({"docker": {"source": "docker-ce", "apt": MIRROR}}, "docker", "192.0.2.9"),
    "no-network": ({"docker": {"source": "docker-ce", "apt": MIRROR}}, "docker", "192.0.2.9"),
}


def merged(fault: dict[str, Any]) -> dict[str, Any]:
    whole = copy.deepcopy(BARE)
    for key, value in fault.items():
        whole[key] = {**whole.get(key, {}), **value} if isinstance(value, dict) else value
    return whole


def plain(text: str) -> str:
    """Undo what cloud-init's repr of an exception does to quotes."""
    return re.sub(r"\\(['\"\\])", r"\1", text)


def said_everywhere(boot: Boot, message: str) -> None:
    assert boot.ended.status == "error", boot.ended.text
    assert message in plain(boot.ended.text)
    status = boot.machine.run(["sammy", "status"], check=False)
    assert status.returncode == 1
    assert message in status.stdout
    errors = [entry["MESSAGE"] for entry in boot.machine.journal("-t", "sammy", "-p", "err")]
    assert any(message in text for text in errors), errors


def stays_reachable(boot: Boot) -> None:
    listen(boot.machine, 9)
    assert [reaches(boot.machine, role, 9) for role in ("machine", "edge", "stranger")] == [True] * 3


@pytest.mark.parametrize("fault", BAD_INPUT)
def test_bad_input_is_named_before_anything_is_done(fault: str, tree: Base, debs: list[Path]) -> None:
    sammy, message = BAD_INPUT[fault]
    with bare_boot(fault, tree, debs, merged(sammy)) as boot:
        said_everywhere(boot, message)
        stays_reachable(boot)
        assert boot.record.steps == []
        assert not boot.machine.exists("/var/lib/sammy/firewall/applied.nft")


@pytest.mark.parametrize("fault", BAD_WORLD)
def test_a_bad_world_fails_its_step_and_the_rest_runs(fault: str, tree: Base, debs: list[Path]) -> None:
    sammy, step, message = BAD_WORLD[fault]
    # bootcmd comes before our module: the server of wrong bytes, or the wire cut
    serve = "echo wrong > /run/sammy-agent.deb; cd /run; exec python3 -m http.server 8"
    server = f"systemd-run --quiet --no-block --unit=wrong sh -c '{serve}'"
    before = {"wrong-sha256": [server], "no-network": ["ip link set eth0 down"]}.get(fault, [])
    with bare_boot(fault, tree, debs, merged(sammy), bootcmd=before) as boot:
        said_everywhere(boot, message)
        record = boot.record
        assert record.step(step).status is Status.FAILED
        assert record.step("firewall").status is Status.COMPLETED
        assert record.step("metadata-block").status is Status.COMPLETED
        if fault == "no-network":
            boot.machine.run(["ip", "link", "set", "eth0", "up"])
        else:
            stays_reachable(boot)
        said = json.loads(boot.machine.run(["sammy", "status", "--json"], check=False).stdout)
        assert said["outcome"] == "failed"
