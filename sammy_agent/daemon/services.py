# SPDX-License-Identifier: Apache-2.0
"""The composition root: builds everything that talks to one control plane, and connects who emits with who acts.

Building has no side effects: no thread, no socket, no file. `start` starts the services one by one, `close` stops
them; one that cannot start is a problem in the status and tried again, whatever becomes of the others.

A new reporter is a class with its `triggers`, and a line in `_build_reporters`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sammy_agent.base.events import kinds
from sammy_agent.base.runtime import process
from sammy_agent.base.runtime.clock import SYSTEM_CLOCK, Clock, iso
from sammy_agent.base.runtime.observer import Signal
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
from sammy_agent.daemon.provisioning_watcher import ProvisioningWatcher, StateChange
from sammy_agent.daemon.recording import Recording
from sammy_agent.daemon.reporters import boot_log
from sammy_agent.daemon.reporters.boot_log import BootLogReporter
from sammy_agent.daemon.reporters.certificate import CertificateRenewer
from sammy_agent.daemon.reporters.debug_packages import DebugPackagePusher
from sammy_agent.daemon.reporters.errors import ErrorReporter
from sammy_agent.daemon.reporters.heartbeat import HeartbeatReporter
from sammy_agent.daemon.reporters.messages import Message, MessageReporter
from sammy_agent.daemon.reporters.ready import ReadyReporter
from sammy_agent.daemon.reporters.reporter import Reporter, Trigger
from sammy_agent.daemon.reporters.session_activity import SessionActivityReporter
from sammy_agent.daemon.server.context import ServerContext
from sammy_agent.daemon.server.jwks import JwksCache, fetcher
from sammy_agent.daemon.server.listener import Listener
from sammy_agent.daemon.service_group import Hooks, Service, ServiceGroup
from sammy_agent.diagnostics.event_store.recent import RecentEvents
from sammy_agent.node.config import AgentConfig
from sammy_agent.node.provisioning import ProvisioningState
from sammy_agent.transport import ControlPlaneTransport, NetworkMonitor, TransportSettings
from sammy_agent.transport.control_plane_transport import Remount


def make_transport(config: AgentConfig) -> ControlPlaneTransport:
    """Return the transport of a configuration. TransportError: its CA file is not usable."""
    return ControlPlaneTransport(TransportSettings(ca_file=config.ca_file))


class Services:
    """Everything that talks to one control plane.

    :param make_client: makes a client of the control plane; the default one sends over the transport.
    :param run: runs programs: the firewall's, the certificate's helper.
    """

    def __init__(
        self,
        config: AgentConfig,
        paths: Paths,
        watcher: ProvisioningWatcher,
        recording: Recording,
        transport: ControlPlaneTransport,
        *,
        make_client: Callable[[ConnectionStatus], ControlPlaneClient] | None = None,
        run: process.Run = process.run,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._run = run
        self.config, self._paths, self._watcher, self._recording = config, paths, watcher, recording
        self._transport = transport
        self.recent_events = RecentEvents(recording.recorder.record)
        self._record = self.recent_events.record
        self.connection = ConnectionStatus(lambda text: notify(f"STATUS={text}"), self._record, clock)
        self._make_client = make_client or self._client_of_transport
        self.node_token = NodeTokenStore(paths, config, self._record)
        self.workspace_tokens = WorkspaceTokens(paths)
        self._client = self._make_client(self.connection)
        self._outbox = OutboxService(
            lambda: self._make_client(self.connection),
            paths,
            identity=self.node_token,
            tokens=self.workspace_tokens,
            record=self._record,
        )
        self._messages = MessageReporter(self._outbox.outbox)
        self._inbound = InboundContacts()
        self._watchdog = FirewallWatchdog(self._inbound, self.connection.is_ok, record=self._record)
        self._monitor = NetworkMonitor(self._on_network_event)
        self._server = Listener(self._server_context(), config.port, self._record)
        self._build_reporters()
        self._connect()
        self._group = ServiceGroup(self._in_order_of_start(), clock)

    def __repr__(self) -> str:
        return f"<Services for {self.config.url}, {self._group!r}>"

    def _client_of_transport(self, status: ConnectionStatus) -> ControlPlaneClient:
        return ControlPlaneClient(self.config.url, self._transport.session, status)

    def _server_context(self) -> ServerContext:
        return ServerContext(
            node_id=self.config.node_id,
            issuer=self.config.url,
            paths=self._paths,
            store=self._recording.store,
            metrics=self._recording.metrics,
            level=self._state,
            inbound=self._inbound,
            keys=JwksCache(fetcher(self._client), self._paths.jwks),
            clock=self.connection.server_time,
        )

    def _build_reporters(self) -> None:
        config, paths, recording, outbox = self.config, self._paths, self._recording, self._outbox.outbox
        client = ReporterClient(self._client, self.node_token)
        self._heartbeat = HeartbeatReporter(
            client, self._state, config.heartbeat_seconds, config.port, self._watchdog.problem
        )
        self._ready = ReadyReporter(client, self._state, paths, self._record, self._run)
        self._activity = SessionActivityReporter(client)
        self._certificate = CertificateRenewer(client, paths, self._run)
        self._reporters: list[Reporter] = [
            self._heartbeat,
            self._ready,
            ErrorReporter(client, self._state, recording.store, outbox, recording.recorder.incidents),
            BootLogReporter(config.node_id, self._state, outbox),
            self._activity,
            self._certificate,
        ]
        if config.debug_push:
            pusher = DebugPackagePusher(client, self._state, paths, config.lost_seconds, self._record)
            self.recent_events.recorded.connect(pusher.on_event)
            self._reporters.append(pusher)

    def _connect(self) -> None:
        """Connect what is emitted with what acts on it."""
        triggers: dict[Trigger, Signal[Any]] = {
            Trigger.CONNECTED: self._heartbeat.connected,
            Trigger.PROVISIONING: self._watcher.changed,
            Trigger.STORED: self._watcher.stored,
            Trigger.INCIDENT: self._recording.recorder.incident_recorded,
        }
        for reporter in self._reporters:
            for trigger in reporter.triggers:
                triggers[trigger].connect(_waking(reporter))
        self._watcher.changed.connect(self._on_state_change)
        self._heartbeat.status_received.connect(self._ready.on_node_status)
        self._heartbeat.connected.connect(lambda _: self._outbox.retry_now())
        self._certificate.installed.connect(_waking(self._server))
        self._transport.remounted.connect(self._on_remount)

    def _in_order_of_start(self) -> list[Service]:
        """Return the services; they are stopped in the reverse order.

        The network monitor comes before the first connection: of older changes the kernel says nothing.
        """
        return [
            Hooks("outbox-queue", stop=self._outbox.close),
            Hooks("transport", stop=self._transport.close),
            Hooks("network-monitor", self._monitor.start, self._monitor.stop),
            Hooks("credentials", self._reload_tokens),
            *self._reporters,
            self._watchdog,
            *self._outbox.workers,
            self._server,
        ]

    def start(self) -> float | None:
        """Start all services; return the seconds until `retry` is due, None when none failed. RuntimeError: twice."""
        return self._group.start()

    def retry(self) -> float | None:
        """Start again what could not be started; return the seconds until the next attempt, None for none."""
        return self._group.retry()

    def close(self) -> None:
        """Stop all that was started. Threads are not waited for: they hold nothing that a kill could harm."""
        self._group.close()

    def workers(self) -> list[Worker]:
        """Return the tasks that were started."""
        return [service for service in self._group.started() if isinstance(service, Worker)]

    def network_changed(self, reason: str) -> None:
        """Drop connections that the change may have killed, and prove the connection with a heartbeat."""
        self._transport.remount(reason)
        self._heartbeat.wake()

    def token_changed(self) -> None:
        """Read the token's files again and use what is there."""
        token = self.node_token.reload()
        until = f", good until {iso(token.expires)}" if token and token.expires else ""
        self._record(kinds.TOKEN_SET, f"the token's files were read again{until}")
        self.workspace_tokens.reload()
        self._outbox.retry_now()
        for worker in self.workers():
            worker.wake()

    def add_messages(self, document: dict[str, Any]) -> None:
        """Keep a workspace's messages: `workspace` and `messages`, each as the wire has it.

        :raises AgentError: what is wrong with it, or that the disk takes nothing.
        """
        workspace = check_id(document.get("workspace"))
        self._messages.send(workspace, *map(Message.from_wire, document.get("messages") or ()))

    def add_boot_log_entry(self, document: dict[str, Any]) -> None:
        """Keep an entry of a workspace's boot log: `workspace`, and `entry` as the wire has it, with an id.

        :raises AgentError: what is wrong with it, or that the disk takes nothing.
        """
        entry = dict(document.get("entry") or {})
        boot_log.add_entry(self._outbox.outbox, check_id(document.get("workspace")), entry)

    def update_session(self, document: dict[str, Any]) -> None:
        """Take the newest state of an ACP session. AgentError: what is wrong with it."""
        self._activity.update(document)

    def requeue(self, ids: list[str] | None) -> int:
        """Send dead letters again, all or those with the ids; return how many. OutboxUnavailable."""
        return self._outbox.outbox.requeue(ids)

    def snapshot(self) -> dict[str, Any]:
        """Return the parts of the status that need a control plane."""
        now = self.connection.server_time()
        return {
            "node_id": self.config.node_id,
            "control_plane_url": self.config.url,
            "contact": self.connection.snapshot(),
            "inbound": self._inbound.snapshot(),
            "server": self._server.snapshot(),
            "token": self.node_token.snapshot(now),
            "firewall": self._watchdog.snapshot(),
            "outbox": self._outbox.snapshot(),
            "workspaces": self.workspace_tokens.snapshot(now),
            "packages": None,
            **{reporter.status_key: reporter.snapshot() for reporter in self._reporters if reporter.status_key},
            "services": {name: problem.to_json() for name, problem in self._group.problems().items()},
        }

    def _state(self) -> ProvisioningState:
        return self._watcher.level

    def _reload_tokens(self) -> None:
        self.node_token.reload()
        self.workspace_tokens.reload()

    def _on_state_change(self, change: StateChange) -> None:
        """Tell the control plane at once how the run ended; single steps wait for the next heartbeat."""
        before, now = change
        if (before.phase, before.summary().get("outcome")) != (now.phase, now.summary().get("outcome")):
            self._heartbeat.wake()

    def _on_network_event(self, reason: str) -> None:
        """Act on the kernel's news; Docker's start alone makes dozens of them, so a good connection is not probed."""
        self._record(kinds.NETWORK_CHANGED, reason)
        self._transport.remount(reason)
        if "firewall" in reason:
            self._watchdog.on_rules_changed()
        if not self.connection.is_ok():
            self._heartbeat.wake()

    def _on_remount(self, remount: Remount) -> None:
        detail = {"closed": remount.idle_closed, "aborted": remount.aborted}
        self._record(kinds.TRANSPORT_REMOUNTED, remount.reason, detail=detail)


def _waking(worker: Worker) -> Callable[[object], None]:
    return lambda _: worker.wake()
