# SPDX-License-Identifier: Apache-2.0
"""Debug packages that go to the control plane by themselves: real agents, a real control plane, kills in between."""

from __future__ import annotations

import io
import json
import signal
import tarfile
from pathlib import Path
from typing import Any

from cc_sammy.contract.incident_id import incident_id
from tests.agent.lab import QUICK, Agent, ControlPlane, command, wait_for

RUN = "20261124T000000-aaaaaaaa"
FAILED = incident_id(RUN, "failed")
PUSHING = {**QUICK, "debug_push": True}
FOLDER = "/var/lib/sammy/agent/packages"


def left(plane: ControlPlane) -> list[dict[str, Any]]:
    """Return what of the node's packages is whole."""
    return [one for one in plane.nodes()["n1"]["artifacts"] if one["status"] == "ready"]


def texts(plane: ControlPlane, folder: Path) -> dict[str, str]:
    """Return the newest package's files."""
    state = ("--state", str(plane.folder))
    told = json.loads(command("control-plane", "artifacts", "n1", "--json", "--output", str(folder), *state).stdout)
    with tarfile.open(fileobj=io.BytesIO(Path(told["artifacts"][0]["path"]).read_bytes())) as archive:
        found = {member.name.partition("/")[2]: archive.extractfile(member) for member in archive}
        return {name: file.read().decode() for name, file in found.items() if file is not None}


def test_a_failed_run_leaves_one_package_under_its_incident(plane: ControlPlane, node: Agent, tmp_path: Path) -> None:
    node.configure(plane.add_node("n1", "--replace"), **PUSHING)
    node.provisioned("failed", "docker: there is no dockerd", run=RUN)
    node.start()
    (one,) = wait_for(lambda: left(plane), "the package")
    assert (one["incidentId"], one["artifactId"]) == (FAILED, f"{FAILED}-safe")
    assert one["sizeBytes"] <= 2 * 1024 * 1024
    incidents = plane.nodes()["n1"]["incidents"]
    assert [entry["incidentId"] for entry in incidents].count(FAILED) == 1, "error and package are one incident"
    held = texts(plane, tmp_path / "out")
    assert "there is no dockerd" in held["state/state.json"]
    assert json.loads(held["manifest.json"])["nodeId"] == "n1"
    token = node.path("/var/lib/sammy/agent/token").read_text().strip()
    assert not [name for name, text in held.items() if token in text or token[20:60] in text]
    wait_for(lambda: node.status()["packages"] == {"waiting": 0, "sent": 1, "problem": None}, "it to be done")
    assert [path.name for path in node.path(FOLDER).iterdir()] == ["memory.json"]
    shown = command("events", "--json", "--type", "package.", "--root", str(node.root)).stdout
    assert json.loads(shown)[0]["type"] == "package.pushed"

    assert node.stop() == 0
    node.start()
    wait_for(lambda: node.status().get("contact", {}).get("state") == "ok", "contact again")
    assert len(left(plane)) == 1 and node.status()["packages"]["sent"] == 1


def test_contact_that_is_back_after_long_is_an_incident_with_a_package(plane: ControlPlane, node: Agent) -> None:
    node.configure(plane.add_node("n1", "--replace"), **PUSHING, lost_seconds=1.0)
    node.provisioned("ready")
    node.start()
    wait_for(lambda: node.status().get("contact", {}).get("state") == "ok", "contact")
    plane.stop()
    wait_for(lambda: node.status()["contact"]["state"] == "failing", "the loss to be noticed")
    lost = node.status()["contact"]
    wait_for(lambda: lost and node.ask("history")["changes"][-1]["boottime_s"] + 2 < uptime(), "an outage of seconds")
    plane.start()
    (one,) = wait_for(lambda: left(plane), "the package")
    incidents = {entry["incidentId"]: entry for entry in plane.nodes()["n1"]["incidents"]}
    assert "without contact" in incidents[one["incidentId"]]["message"]


def uptime() -> float:
    return float(Path("/proc/uptime").read_text().split()[0])


def test_it_outlives_kills_and_an_absent_control_plane(plane: ControlPlane, node: Agent) -> None:
    node.configure(plane.add_node("n1", "--replace"), **PUSHING)
    plane.stop()
    node.provisioned("failed", "docker: there is no dockerd", run=RUN)
    node.start()
    package = node.path(f"{FOLDER}/{FAILED}.tar.gz")
    wait_for(package.exists, "the package, which needs no control plane")
    wait_for(lambda: node.status()["packages"]["problem"], "the first attempt to send it")
    made = package.read_bytes()
    node.stop(signal.SIGKILL)
    plane.start()
    node.start()
    (one,) = wait_for(lambda: left(plane), "the package")
    (kept,) = (plane.folder / "artifacts" / "n1").iterdir()
    assert kept.read_bytes() == made, "it was not made a second time"
    assert one["incidentId"] == FAILED


def test_whoever_opted_out_sends_none(plane: ControlPlane, node: Agent) -> None:
    node.configure(plane.add_node("n1", "--replace"), **{**PUSHING, "debug_push": False})
    node.provisioned("failed", "docker: there is no dockerd", run=RUN)
    node.start()
    wait_for(lambda: plane.nodes()["n1"]["incidents"], "the error's report")
    assert node.status()["packages"] is None and not node.path(FOLDER).exists()
