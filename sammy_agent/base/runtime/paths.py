# SPDX-License-Identifier: Apache-2.0
"""Where the agent finds and keeps things; all below one root, so that a test's agent is a whole one."""

from __future__ import annotations

from dataclasses import dataclass

from cc_sammy.contract import paths

OWN = "/var/lib/sammy/agent"
CONTROL_PLANE_STATE = "/var/lib/sammy/control-plane"
BOOT_ID = "/proc/sys/kernel/random/boot_id"


@dataclass(frozen=True)
class Places:
    """Paths of one machine; `root` is put before each."""

    root: str = ""

    def at(self, path: str) -> str:
        """Return where an absolute path of the machine lies."""
        return self.root + path

    @property
    def config(self) -> str:
        """What agent-install wrote."""
        return self.at(paths.AGENT_CONFIG)

    @property
    def socket(self) -> str:
        """The control socket."""
        return self.at(paths.AGENT_SOCKET)

    @property
    def state(self) -> str:
        """This boot's run record."""
        return self.at(paths.STATE)

    @property
    def runs(self) -> str:
        """Run records of all boots."""
        return self.at(paths.RUNS)

    @property
    def ready_acknowledged(self) -> str:
        """The mark on which the firewall closes ssh."""
        return self.at(paths.READY_ACKNOWLEDGED)

    @property
    def token(self) -> str:
        """The token in use, refreshed ones included."""
        return self.at(f"{OWN}/token")

    @property
    def token_source(self) -> str:
        """Which token of the user-data the one in use began with, as a digest."""
        return self.at(f"{OWN}/token-source")

    @property
    def ready(self) -> str:
        """What is known of the acknowledged ready."""
        return self.at(f"{OWN}/ready.json")

    @property
    def instance(self) -> str:
        """The instance id that all of this belongs to."""
        return self.at(f"{OWN}/instance-id")

    @property
    def events(self) -> str:
        """The event store."""
        return self.at(f"{OWN}/events.db")

    @property
    def metrics(self) -> str:
        """How the machine fared."""
        return self.at(f"{OWN}/metrics.db")

    @property
    def outbox(self) -> str:
        """What must reach the control plane and has not yet."""
        return self.at(f"{OWN}/outbox.db")

    @property
    def workspaces(self) -> str:
        """The folder of the workspaces' tokens."""
        return self.at(f"{OWN}/workspaces")

    @property
    def jwks(self) -> str:
        """The control plane's public keys as last fetched."""
        return self.at(f"{OWN}/jwks.json")

    @property
    def packages(self) -> str:
        """Debug packages that the control plane has not acknowledged."""
        return self.at(f"{OWN}/packages")

    @property
    def outgoing(self) -> str:
        """What is being sent to the control plane, in private; nothing of it is kept."""
        return self.at("/var/lib/sammy/outgoing")

    @property
    def tls_mark(self) -> str:
        """Says that the node's TLS key is one that the agent made."""
        return self.at(f"{OWN}/tls-key-is-ours")

    @property
    def tls_key(self) -> str:
        """The node's TLS key."""
        return self.at("/etc/sammy/tls/node.key")

    @property
    def tls_certificate(self) -> str:
        """Its certificate."""
        return self.at("/etc/sammy/tls/node.crt")
