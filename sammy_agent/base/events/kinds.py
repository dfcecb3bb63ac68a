# SPDX-License-Identifier: Apache-2.0
"""The kinds of events, one table: what each is called, how grave it is, and how often it is worth a row of its own.

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
    :param burst: so many in a minute are kept one by one; the rest of that minute is one row with their number.
    :param incident: the control plane is told by an error report too.
    """

    type: str
    level: str
    meaning: str
    burst: int = 5
    incident: bool = False


AGENT_STARTED = Kind("agent.started", "info", "the agent began; version, pid")
AGENT_STOPPED = Kind("agent.stopped", "info", "the agent was told to end; signal, or the reason to begin anew")
AGENT_CRASHED = Kind(
    "agent.crashed", "warn", "the agent before this one ended without a word: killed, crashed, or the power went"
)
CONNECTED = Kind("contact.made", "info", "the control plane answered a heartbeat for the first time since the start")
CONTACT_LOST = Kind(
    "contact.lost", "warn", "a heartbeat failed after good ones, or for another cause than before; code"
)
CONTACT_REGAINED = Kind("contact.regained", "info", "heartbeats are answered again; duration, failures")
TRANSPORT_REMOUNTED = Kind("transport.remounted", "info", "connections were renewed; reason", burst=1)
NETWORK_CHANGED = Kind(
    "network.changed", "info", "the kernel or the control socket told of a change of the network", burst=2
)
TOKEN_REFRESHED = Kind("token.refreshed", "info", "the control plane renewed the node's token; expires")
TOKEN_EXPIRED = Kind("token.expired", "error", "the control plane refuses the node's token, whose time is over")
TOKEN_SET = Kind("token.set", "info", "another token was given to this node; expires")
READY_ACKNOWLEDGED = Kind("ready.acknowledged", "info", "the control plane took the node's ready")
READY_FORGOTTEN = Kind("ready.forgotten", "warn", "the control plane calls a node that was ready `creating`")
FIREWALL_REPAIRED = Kind("firewall.repaired", "warn", "another program changed the rules; they are back; differences")
FIREWALL_UNCHECKED = Kind("firewall.unchecked", "error", "the rules could not be compared or put back; reason", burst=1)
FIREWALL_LIFTED = Kind(
    "firewall.lifted",
    "warn",
    "the agent's port is open for a trial: the control plane no longer came in under new rules",
)
FIREWALL_NOT_AT_FAULT = Kind("firewall.not-at-fault", "info", "it did not come in then either; the rules are back")
FIREWALL_ROLLED_BACK = Kind(
    "firewall.rolled-back", "error", "it came in then: the rules of before hold, or none; reason", incident=True
)
FIREWALL_APPLIED = Kind("firewall.applied", "info", "the rules that hold once ready is acknowledged are in force")
FIREWALL_FAILED = Kind("firewall.failed", "error", "those rules could not be put in force; reason")
PACKAGE_PUSHED = Kind("package.pushed", "info", "a debug package went to the control plane; bytes, why")
SERVER_LISTENING = Kind("server.listening", "info", "the port is open to the control plane, or is so again; port")
SERVER_UNAVAILABLE = Kind(
    "server.shut", "warn", "the control plane cannot come in: port taken, certificate unusable, …; code"
)
STORE_DAMAGED = Kind(
    "store.damaged", "error", "a database was corrupt: it was moved aside and recreated; path", incident=True
)
OUTBOX_DROPPED = Kind("outbox.dropped", "error", "the outbox was full and gave up its oldest rows; rows")
OUTBOX_SET_ASIDE = Kind("outbox.set-aside", "error", "the control plane refuses a row for good; id, reason")
EVENTS_LOST = Kind("events.lost", "warn", "events that could not be kept, for the disk or for want of room; counts")

KINDS = tuple(value for value in list(globals().values()) if isinstance(value, Kind))
