# SPDX-License-Identifier: Apache-2.0
"""Everything that talks to one control plane, wired: one transport, a session a duty, and who wakes whom."""

from __future__ import annotations

from typing import Any

from sammy_agent.base.events import kinds
from sammy_agent.base.runtime.clock import iso
from sammy_agent.base.runtime.paths import Paths
from sammy_agent.base.runtime.sd_notify import notify
from sammy_agent.base.runtime.worker import Worker
from sammy_agent.daemon.client.client import ControlPlaneClient
from sammy_agent.daemon.client.connectivity import ConnectionStatus
from sammy_agent.daemon.client.reporter_client import ReporterClient
from sammy_agent.daemon.credentials.node_token import NodeTokenStore
from sammy_agent.daemon.credentials.workspace_tokens import WorkspaceTokens, check_id
from sammy_agent.daemon.firewall_watch.inbound_contact import InboundContacts
from sammy_agent.daemon.firewall_watch.watchdog import FirewallWatchdog
from sammy_agent.daemon.outbox.service import OutboxService
from sammy_agent.daemon.provisioning_watcher import ProvisioningWatcher
from sammy_agent.daemon.recording import Recording
from sammy_agent.daemon.reporters import boot_log
from sammy_agent.daemon.reporters.boot_log import BootLogReporter
from sammy_agent.daemon.reporters.certificate import CertificateRenewer
from sammy_agent.daemon.reporters.debug_packages import DebugPackagePusher
from sammy_agent.daemon.reporters.errors import ErrorReporter
from sammy_agent.daemon.reporters.heartbeat import HeartbeatReporter
from sammy_agent.daemon.reporters.messages import Message, MessageReporter
from sammy_agent.daemon.reporters.ready import ReadyReporter
from sammy_agent.daemon.reporters.session_activity import SessionActivityReporter
from sammy_agent.daemon.server.context import Parts
from sammy_agent.daemon.server.jwks import Keys, fetcher
from sammy_agent.daemon.server.listener import Listener
from sammy_agent.diagnostics.event_store.recent import History
from sammy_agent.node.config import AgentConfig
from sammy_agent.node.provisioning import Provisioning
from sammy_agent.transport import ControlPlaneTransport, NetworkMonitor, Remount, TransportSettings


class Reporting:
    """Everything that talks to one control plane."""

    def __init__(self, loaded: AgentConfig, paths: Paths, watcher: ProvisioningWatcher, recording: Recording) -> None:
        self.config = loaded
        self.history = History(recording.recorder.record)
        self._record = self.history.record
        self.contact = ConnectionStatus(lambda words: notify(f"STATUS={words}"), self._record)
        self.identity = NodeTokenStore(paths, loaded, self._record)
        self.identity.reload()
        self.workspaces = WorkspaceTokens(paths)
        self.workspaces.reload()
        self.transport = ControlPlaneTransport(TransportSettings(ca_file=loaded.ca_file))
        self.transport.remounted.connect(self._remounted)
        self.inbound = InboundContacts()  # the management server tells it who came in; the guard asks it
        self.guard = FirewallWatchdog(self.inbound, self.contact.is_ok, record=self._record)
        # before the first connection: of older ones the kernel says nothing
        self.monitor = NetworkMonitor(self._network_heard)
        self.monitor.start()
        client = ControlPlaneClient(loaded.url, self.transport.session, self.contact)
        plane = ReporterClient(client, self.identity)
        self.delivery = OutboxService(
            loaded.url,
            paths,
            identity=self.identity,
            tokens=self.workspaces,
            transport=self.transport,
            contact=self.contact,
            record=self._record,
        )
        self.messages = MessageReporter(self.delivery.outbox)

        def level() -> Provisioning:
            return watcher.level

        self.ready = ReadyReporter(plane, level, paths, self._record)
        self.errors = ErrorReporter(plane, level, recording.store, self.delivery.outbox, recording.recorder.incidents)
        self.boot_log = BootLogReporter(loaded.node_id, level, self.delivery.outbox)
        self.activity = SessionActivityReporter(plane)
        self.heartbeat = HeartbeatReporter(plane, level, loaded.heartbeat_seconds, loaded.port)
        self.certificate = CertificateRenewer(plane, paths)
        self.server = Listener(
            Parts(
                node_id=loaded.node_id,
                issuer=loaded.url,
                paths=paths,
                store=recording.store,
                metrics=recording.metrics,
                level=level,
                inbound=self.inbound,
                keys=Keys(fetcher(client), paths.jwks),
                clock=self.contact.server_time,
            ),
            loaded.port,
            self._record,
        )
        self.workers: tuple[Worker, ...] = (
            self.heartbeat,
            self.ready,
            self.errors,
            self.boot_log,
            self.activity,
            self.certificate,
            self.guard,
            *self.delivery.workers,
            self.server,
        )
        self.packages: DebugPackagePusher | None = None
        if loaded.debug_push:
            self.packages = DebugPackagePusher(plane, level, paths, loaded.lost_seconds, self._record)
            self.history.on_event = self.packages.heard
            self.workers = (*self.workers, self.packages)
        self.certificate.on_installed = self.server.wake
        self.heartbeat.problem = self.guard.problem
        self.heartbeat.on_status = self.ready.on_node_status
        self.heartbeat.on_contact = self._contact_made
        self._check_instance = watcher.on_change
        watcher.on_change = self._level_changed
        watcher.on_stored = self.errors.wake
        recording.recorder.on_incident = self.errors.wake

    def _contact_made(self) -> None:
        """Let the others not sit out their pauses after an outage."""
        if self.packages is not None:
            self.packages.wake()
        for worker in (self.ready, self.errors, self.activity, self.certificate):
            worker.wake()
        self.delivery.retry_now()

    def _level_changed(self, before: Provisioning, now: Provisioning) -> None:
        self._check_instance(before, now)
        self.ready.wake()
        self.errors.wake()
        self.boot_log.wake()
        if self.packages is not None:
            self.packages.wake()
        if (before.phase, before.summary().get("outcome")) != (now.phase, now.summary().get("outcome")):
            self.heartbeat.wake()

    def network_changed(self, reason: str) -> None:
        """Drop connections that the change may have killed, and prove the contact anew."""
        self.transport.remount(reason)
        self.heartbeat.wake()

    def _network_heard(self, reason: str) -> None:
        """Take the kernel's word; Docker's start alone makes dozens of them, so a good contact is not asked again."""
        self._record(kinds.NETWORK_CHANGED, reason)
        self.transport.remount(reason)
        if "firewall" in reason:
            self.guard.on_rules_changed()
        if not self.contact.is_ok():
            self.heartbeat.wake()

    def _remounted(self, remount: Remount) -> None:
        detail = {"closed": remount.idle_closed, "aborted": remount.aborted}
        self._record(kinds.TRANSPORT_REMOUNTED, remount.reason, detail=detail)

    def stop(self) -> None:
        """End the duties; the threads are left behind, they hold nothing that a kill could harm."""
        for worker in self.workers:
            worker.stop()
        self.monitor.stop()
        self.transport.close()
        self.delivery.close()

    def token_changed(self) -> None:
        """Read the token's files again and use what is there."""
        token = self.identity.reload()
        until = f", good until {iso(token.expires)}" if token and token.expires else ""
        self._record(kinds.TOKEN_SET, f"the token's files were read again{until}")
        self.workspaces.reload()
        self.delivery.retry_now()
        for worker in self.workers:
            worker.wake()

    def say(self, document: dict[str, Any]) -> None:
        """Keep a workspace's messages: `workspace` and `messages`, each as the wire has it.

        :raises AgentError: in words, what is wrong with it, or that the disk takes nothing.
        """
        workspace = check_id(document.get("workspace"))
        self.messages.say(workspace, *map(Message.from_wire, document.get("messages") or ()))

    def log(self, document: dict[str, Any]) -> None:
        """Keep an entry of a workspace's boot log: `workspace`, and `entry` as the wire has it, with an id.

        :raises AgentError: in words, what is wrong with it, or that the disk takes nothing.
        """
        boot_log.say(self.delivery.outbox, check_id(document.get("workspace")), dict(document.get("entry") or {}))

    def snapshot(self) -> dict[str, Any]:
        """Return the parts of the status that need a control plane."""
        return {
            "node_id": self.config.node_id,
            "control_plane_url": self.config.url,
            "contact": self.contact.snapshot(),
            "inbound": self.inbound.snapshot(),
            "server": self.server.snapshot(),
            "token": self._token(),
            "firewall": self.guard.snapshot(),
            "ready": self.ready.snapshot(),
            "errors": self.errors.snapshot(),
            "outbox": self.delivery.snapshot(),
            "sessions": self.activity.snapshot(),
            "packages": self.packages.snapshot() if self.packages is not None else None,
            "workspaces": self.workspaces.snapshot(self.contact.server_time()),
        }

    def _token(self) -> dict[str, Any]:
        token, problem = self.identity.token(), self.identity.problem()
        now = self.contact.server_time()
        state = "missing" if token is None else "expired" if token.is_expired(now) else "ok"
        return {
            "state": state,
            "issued": iso(token.issued) if token else None,
            "expires": iso(token.expires) if token else None,
            "seconds_left": round(token.expires - now, 1) if token and token.expires is not None else None,
            "problem": problem.to_json() if problem else None,
        }
