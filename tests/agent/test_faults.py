# SPDX-License-Identifier: Apache-2.0
"""What an agent must survive: a control plane that is away or misbehaves, a clock, kills, a full disk.

In each case the node ends ready when the cause goes, never says ready before, and its status names the cause.
"""

from __future__ import annotations

import ipaddress
import random
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sammy_agent.control_plane.token_signer import TokenSigner
from sammy_agent.diagnostics.event_store.event_query import EventQuery
from sammy_agent.diagnostics.event_store.event_store import EventStore
from tests.agent.lab import Agent, ControlPlane, Misbehaving, control_plane, wait_for

KILLS = 50
READY = "/var/lib/sammy/ready-acknowledged"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plane")


@pytest.fixture
def plane(folder: Path) -> Iterator[ControlPlane]:
    """A control plane that a test may stop and start; its CA and keys are the module's."""
    with control_plane(folder) as running:
        yield running


def status_of(plane: ControlPlane) -> str:
    return str(plane.nodes()["n1"]["status"])


def assert_not_ready(node: Agent) -> None:
    assert node.status()["ready"]["state"] != "acknowledged"
    assert not node.path(READY).exists()


def ends_ready(plane: ControlPlane, node: Agent) -> None:
    wait_for(lambda: status_of(plane) == "running", "ready once the cause is gone")
    wait_for(lambda: node.status().get("contact", {}).get("state") == "ok", "contact in its own eyes")
    wait_for(node.path(READY).exists, "the acknowledgment on disk")


def test_a_control_plane_that_is_away_at_first(plane: ControlPlane, node: Agent) -> None:
    plane.stop()
    node.provisioned("ready")
    node.start()
    wait_for(lambda: node.cause() == "unreachable", "the cause to be said")
    assert_not_ready(node)
    wait_for(lambda: node.status()["contact"]["failures"] >= 5, "it to go on trying")
    plane.start()
    ends_ready(plane, node)
    assert node.log().count("refused") <= 3, "one line a cause and duty (beat, ready, boot log), not one an attempt"


def test_a_control_plane_that_goes_and_comes_back(plane: ControlPlane, node: Agent) -> None:
    node.provisioned("running")
    node.start()
    wait_for(lambda: node.status().get("contact", {}).get("state") == "ok", "contact")
    plane.stop(signal.SIGKILL)
    wait_for(lambda: node.cause() == "unreachable", "the cause to be said")
    node.provisioned("ready")
    plane.start()
    ends_ready(plane, node)
    assert "contact with the control plane again" in node.log()


@pytest.mark.parametrize(
    ("manner", "code"),
    [
        ("500", "server-error"),
        ("401", "token-refused"),
        ("garbage", "not-a-control-plane"),
        ("foreign", "not-a-control-plane"),
        ("deep", "not-a-control-plane"),
        ("hang", "no-answer"),
        ("drip", "no-answer"),
    ],
)
def test_a_control_plane_that_misbehaves(plane: ControlPlane, node: Agent, manner: str, code: str) -> None:
    plane.stop()
    node.provisioned("ready")
    with Misbehaving(plane, manner) as other:
        node.start()
        wait_for(lambda: node.cause() == code, f"the cause {code} to be said")
        wait_for(lambda: any(call.endswith("/ready") for call in other.calls), "ready to be tried")
        wait_for(lambda: node.status()["contact"]["failures"] >= 2, "it to go on trying")
        assert node.status()["contact"]["cause"]["next_step"]
        assert_not_ready(node)
    plane.start()
    ends_ready(plane, node)


def test_the_misbehaving_one_would_be_believed_if_it_behaved(plane: ControlPlane, node: Agent) -> None:
    """The detector of the tests above is shown the opposite: good answers of the same server make it ready."""
    plane.stop()
    node.provisioned("ready")
    with Misbehaving(plane, "good"):
        node.start()
        wait_for(node.path(READY).exists, "ready")


def test_500_with_an_expired_token_is_called_what_it_is(plane: ControlPlane, node: Agent) -> None:
    expired = TokenSigner.open(str(plane.folder)).callback_token(plane.url, "n1", now=time.time() - 2 * 86400)
    node.path("/etc/sammy/callback-token").write_text(expired)
    plane.stop()
    with Misbehaving(plane, "500"):
        node.start()
        wait_for(lambda: node.cause() == "token-expired", "the cause behind SAM's 500")


def make_certificate(folder: Path, into: Path, begin: datetime, name: x509.GeneralName) -> None:
    """Write server.crt and server.key, of the same CA, good for 90 days from `begin` and for one name."""
    ca = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
    ca_key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "another")]))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=90))
        .add_extension(x509.SubjectAlternativeName([name]), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    into.mkdir()
    (into / "server.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (into / "server.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


LOOPBACK = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
NOW = datetime.now(timezone.utc)


@pytest.mark.parametrize(
    ("validity", "code"),
    [
        ((NOW + timedelta(days=300), LOOPBACK), "clock-or-certificate"),  # our clock is a year behind
        ((NOW - timedelta(days=300), LOOPBACK), "clock-or-certificate"),  # or ahead
        ((NOW - timedelta(days=1), x509.DNSName("elsewhere.example")), "certificate"),
        ((NOW - timedelta(days=1), LOOPBACK), ""),  # the other three are refused for what is said of them alone
    ],
    ids=["clock behind", "clock ahead", "another name", "good"],
)
def test_a_clock_a_year_off_and_a_certificate_for_another(
    plane: ControlPlane, node: Agent, tmp_path: Path, validity: tuple[datetime, x509.GeneralName], code: str
) -> None:
    plane.stop()
    other = ControlPlane(tmp_path / "other")
    other.port = plane.port
    make_certificate(plane.folder, other.folder, *validity)
    node.provisioned("ready")
    with Misbehaving(other, "good"):
        node.start()
        if not code:
            wait_for(node.path(READY).exists, "ready")
            return
        wait_for(lambda: node.cause() == code, "the cause to be named")
        cause = node.status()["contact"]["cause"]
        if code == "clock-or-certificate":
            assert f"The local time is {NOW:%Y-%m}" in cause["text"]
            assert "timedatectl" in cause["text"] + cause["next_step"]
        assert_not_ready(node)
    plane.start()
    ends_ready(plane, node)


def test_a_control_plane_of_another_authority(plane: ControlPlane, node: Agent, tmp_path: Path) -> None:
    with control_plane(tmp_path / "other") as other:
        node.path("/etc/sammy/control-plane-ca.crt").write_bytes(Path(other.ca_file).read_bytes())
    node.provisioned("ready")
    node.start()
    wait_for(lambda: node.cause() == "certificate", "the certificate to be named")
    assert_not_ready(node)
    assert plane.nodes()["n1"]["lastHeartbeatAt"] is None, "its token went to nobody"


def test_killed_many_times_during_a_boot(plane: ControlPlane, node: Agent) -> None:
    node.provisioned("running")
    chance = random.Random(20261124)
    for kill in range(KILLS):
        if kill == KILLS - 5:
            assert status_of(plane) == "creating", "not ready while provisioning"
            node.provisioned("ready")
        node.start()
        time.sleep(chance.uniform(0.0, 0.9))  # the moment of the kill is what is varied here
        node.stop(signal.SIGKILL)
    node.start()
    ends_ready(plane, node)
    assert plane.nodes()["n1"]["lastHeartbeatAt"] is not None
    own = node.path("/var/lib/sammy/agent/token")
    assert own.read_text().count(".") == 2 and own.stat().st_mode & 0o777 == 0o600
    assert not list(own.parent.glob("*.damaged"))
    with sqlite3.connect(own.parent / "events.db") as events:
        wait_for(
            lambda: (
                events.execute("SELECT step, status FROM events WHERE step != '' ORDER BY seq").fetchall()
                == [("packages", "started"), ("packages", "completed"), ("docker", "started"), ("docker", "completed")]
            ),
            "each event once",
        )
        assert events.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.needs("root")
def test_a_full_disk(plane: ControlPlane, node: Agent) -> None:
    disk = node.path("/var/lib/sammy/agent")
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], check=True)
    try:
        filler = disk / "filler"
        with pytest.raises(OSError, match="No space"), open(filler, "wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        node.provisioned("running")
        node.start()
        wait_for(lambda: node.status().get("contact", {}).get("state") == "ok", "contact all the same")
        wait_for(lambda: node.status()["store"]["problem"], "the store's problem to be said")
        assert node.status()["token"]["problem"]["code"] == "token-unsaved"
        assert "No space" in node.status()["token"]["problem"]["text"]
        assert status_of(plane) == "creating"
        node.provisioned("ready")
        wait_for(lambda: status_of(plane) == "running", "ready: provisioning did succeed")
        wait_for(lambda: (node.status()["ready"]["cause"] or {}).get("code") == "ready-unsaved", "its trouble said")
        filler.unlink()
        wait_for((disk / "ready.json").exists, "the acknowledgment to be kept")
        wait_for(lambda: node.status()["token"]["problem"] is None, "the token to be kept")
        wait_for(lambda: not node.status()["store"]["problem"], "the store to be fed")
        wait_for((disk / "instance-id").exists, "the instance id to be kept")
        assert (disk / "token").stat().st_mode & 0o777 == 0o600
    finally:
        node.stop(signal.SIGKILL)
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_damaged_store_is_begun_anew(plane: ControlPlane, node: Agent) -> None:
    node.path("/var/lib/sammy/agent/events.db").write_bytes(b"this is no database" * 1000)
    node.provisioned("failed", "docker: no")
    node.start()
    wait_for(
        lambda: len(plane.nodes()["n1"]["incidents"]) == 2, "the failure to be reported all the same, and the damage"
    )
    messages = " ".join(one["message"] for one in plane.nodes()["n1"]["incidents"])
    assert "provisioning failed: docker: no" in messages and "events.db is corrupt" in messages
    assert node.path("/var/lib/sammy/agent/events.db.damaged").exists()
    assert "moved to" in node.status()["store"]["damage"]
    types = [event["type"] for event in EventStore(str(node.path("/var/lib/sammy/agent/events.db"))).events()]
    assert {"store.damaged", "agent.started", "provision.docker"} <= set(types)


def test_a_store_damaged_in_the_middle_of_work_is_begun_anew_and_said(plane: ControlPlane, node: Agent) -> None:
    path = node.path("/var/lib/sammy/agent/events.db")
    store = EventStore(str(path))
    node.provisioned("ready")
    node.start()
    ends_ready(plane, node)
    wait_for(lambda: len(store.events(EventQuery(type_prefix="provision."))) == 4, "the steps' events")
    with sqlite3.connect(path, timeout=30) as database:  # nothing of the file is in the journal beside it now
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (path.stat().st_size - 4096))
    node.ask("network-changed by the test")
    wait_for(path.with_suffix(".db.damaged").exists, "it to be moved aside")
    wait_for(lambda: "events.db is corrupt" in node.status()["store"]["damage"], "it to be said")
    wait_for(lambda: plane.nodes()["n1"]["incidents"], "it to be reported")
    wait_for(lambda: len(store.events(EventQuery(type_prefix="provision."))) == 4, "the steps' events again")
    assert {"store.damaged", "network.changed"} <= {event["type"] for event in store.events()}
    assert node.is_alive() and node.status()["contact"]["state"] == "ok"


def test_the_agents_own_events(plane: ControlPlane, node: Agent) -> None:
    store = EventStore(str(node.path("/var/lib/sammy/agent/events.db")))

    def types() -> list[str]:
        return [event["type"] for event in store.events()][::-1]

    node.provisioned("ready")
    node.start()
    ends_ready(plane, node)
    wait_for(
        lambda: {"contact.made", "ready.acknowledged", "token.refreshed", "firewall.applied"} <= set(types()), "them"
    )
    plane.stop(signal.SIGKILL)
    wait_for(lambda: "contact.lost" in types(), "the loss")
    plane.start()
    wait_for(lambda: "contact.regained" in types(), "the return")
    (lost,) = store.events(EventQuery(type_prefix="contact.lost"))
    (again,) = store.events(EventQuery(type_prefix="contact.regained"))
    assert lost["detail"]["code"] == "unreachable" and lost["level"] == "warn"
    apart = again["boottime_us"] - lost["boottime_us"]
    assert abs(again["duration_us"] - apart) < 1_000_000, "how long the contact was gone"
    node.ask("network-changed docker-restart")
    node.stop(signal.SIGTERM)
    assert {"agent.stopped", "network.changed", "transport.remounted"} <= set(types())
    node.start()
    wait_for(lambda: types().count("agent.started") == 2, "the second start")
    node.stop(signal.SIGKILL)
    assert "agent.crashed" not in types()
    node.start()
    wait_for(lambda: types().count("agent.started") == 3, "the third")
    (crash,) = store.events(EventQuery(type_prefix="agent.crashed"))
    assert "killed or it crashed" in crash["message"] and crash["detail"]["pid"] != node.pid


def test_a_damaged_state_file_is_not_ready(plane: ControlPlane, node: Agent) -> None:
    node.path("/run/sammy/state.json").write_text('{"run_id": 1, "outcome": "ready"')
    node.start()
    wait_for(lambda: "damaged" in (plane.nodes()["n1"]["provisioning"] or {}).get("reason", ""), "it to be said")
    assert status_of(plane) == "creating"
    node.provisioned("ready")
    ends_ready(plane, node)
