# SPDX-License-Identifier: Apache-2.0
"""The kinds of events in one table: type, level, meaning, and how many of a minute get a row of their own.

`provision.<step>` comes from the run records and is not in it. docs/events.md lists the table.
"""

from __future__ import annotations

from dataclasses import dataclass

LEVELS = ("debug", "info", "warn", "error")
PROVISION = "provision."


@dataclass(frozen=True)
class Kind:
    """One kind of event.

    :param meaning: when it happens, and what its detail holds.
    :param burst: number of events per minute that are kept one by one; the others become one row with their number.
    :param incident: it is also sent to the control plane as an error report.
    """

    type: str
    level: str
    meaning: str
    burst: int = 5
    incident: bool = False


AGENT_STARTED = Kind("agent.started", "info", "the agent started; version, pid")
AGENT_STOPPED = Kind("agent.stopped", "info", "the agent was stopped; signal, or the reason of a restart")
AGENT_CRASHED = Kind(
    "agent.crashed", "warn", "the previous agent ended uncleanly: it was killed, it crashed, or the power failed"
)
CONNECTED = Kind("contact.made", "info", "the control plane answered a heartbeat for the first time since the start")
CONTACT_LOST = Kind(
    "contact.lost", "warn", "a heartbeat failed after successful ones, or for another reason than before; code"
)
CONTACT_REGAINED = Kind("contact.regained", "info", "heartbeats are answered again; duration, failures")
TRANSPORT_REMOUNTED = Kind("transport.remounted", "info", "connections were renewed; reason", burst=1)
NETWORK_CHANGED = Kind(
    "network.changed", "info", "the kernel or the control socket reported a change of the network", burst=2
)
TOKEN_REFRESHED = Kind("token.refreshed", "info", "the control plane refreshed the node's token; expires")
TOKEN_EXPIRED = Kind("token.expired", "error", "the control plane refuses the node's token, which has expired")
TOKEN_SET = Kind("token.set", "info", "the node was given another token; expires")
READY_ACKNOWLEDGED = Kind("ready.acknowledged", "info", "the control plane acknowledged that the node is ready")
READY_FORGOTTEN = Kind("ready.forgotten", "warn", "the control plane calls a node that was ready `creating`")
FIREWALL_REPAIRED = Kind(
    "firewall.repaired", "warn", "another program changed the rules; they are restored; differences, notes"
)
FIREWALL_UNCHECKED = Kind("firewall.unchecked", "error", "the rules could not be compared or restored; reason", burst=1)
FIREWALL_LIFTED = Kind(
    "firewall.lifted",
    "warn",
    "the agent's port is open for a trial: the control plane no longer connected under new rules",
)
FIREWALL_NOT_AT_FAULT = Kind(
    "firewall.not-at-fault", "info", "it did not connect during the trial either; the rules are restored"
)
FIREWALL_ROLLED_BACK = Kind(
    "firewall.rolled-back",
    "error",
    "it connected during the trial: the previous rules are in force, or none; reason, notes",
    incident=True,
)
FIREWALL_APPLIED = Kind("firewall.applied", "info", "the rules for a node that is ready are in force; notes")
FIREWALL_FAILED = Kind("firewall.failed", "error", "those rules could not be applied; reason")
PACKAGE_PUSHED = Kind("package.pushed", "info", "a debug package was sent to the control plane; bytes, reason")
SERVER_LISTENING = Kind("server.listening", "info", "the agent's port accepts connections, or does so again; port")
SERVER_UNAVAILABLE = Kind(
    "server.shut", "warn", "the agent's port accepts no connections: port taken, certificate unusable, …; code"
)
STORE_DAMAGED = Kind(
    "store.damaged", "error", "a database was corrupt: it was moved aside and recreated; path", incident=True
)
OUTBOX_DROPPED = Kind("outbox.dropped", "error", "the outbox was full and dropped its oldest rows; rows")
OUTBOX_SET_ASIDE = Kind("outbox.set-aside", "error", "the control plane rejects a row permanently; id, reason")
EVENTS_LOST = Kind("events.lost", "warn", "events that could not be recorded: the disk, or too many at once; counts")

KINDS = tuple(value for value in list(globals().values()) if isinstance(value, Kind))
