# SPDX-License-Identifier: Apache-2.0
"""Paths of the files that the agent reads and keeps; all below one root, so that a test's agent is a whole one."""

from __future__ import annotations

from dataclasses import dataclass

from cc_sammy.contract import paths

STATE_DIR = "/var/lib/sammy/agent"
CONTROL_PLANE_STATE = "/var/lib/sammy/control-plane"
BOOT_ID = "/proc/sys/kernel/random/boot_id"


@dataclass(frozen=True)
class Paths:
    """Paths of one machine; `root` is put before each."""

    root: str = ""

    def under_root(self, path: str) -> str:
        """Return an absolute path of the machine as it is below the root."""
        return self.root + path

    @property
    def config(self) -> str:
        """The agent's configuration, written by agent-install."""
        return self.under_root(paths.AGENT_CONFIG)

    @property
    def socket(self) -> str:
        """The control socket."""
        return self.under_root(paths.AGENT_SOCKET)

    @property
    def state(self) -> str:
        """This boot's run record."""
        return self.under_root(paths.STATE)

    @property
    def runs(self) -> str:
        """Run records of all boots."""
        return self.under_root(paths.RUNS)

    @property
    def ready_acknowledged(self) -> str:
        """The mark by which the firewall knows that it may close ssh."""
        return self.under_root(paths.READY_ACKNOWLEDGED)

    @property
    def token(self) -> str:
        """The token in use, refreshed ones included."""
        return self.under_root(f"{STATE_DIR}/token")

    @property
    def token_source(self) -> str:
        """Digest of the user-data's token that the one in use was refreshed from."""
        return self.under_root(f"{STATE_DIR}/token-source")

    @property
    def ready(self) -> str:
        """The acknowledgement of /ready."""
        return self.under_root(f"{STATE_DIR}/ready.json")

    @property
    def instance(self) -> str:
        """The instance id that the agent's state belongs to."""
        return self.under_root(f"{STATE_DIR}/instance-id")

    @property
    def events(self) -> str:
        """The event store."""
        return self.under_root(f"{STATE_DIR}/events.db")

    @property
    def metrics(self) -> str:
        """The metrics' samples."""
        return self.under_root(f"{STATE_DIR}/metrics.db")

    @property
    def outbox(self) -> str:
        """The outbox: what is still to be delivered to the control plane."""
        return self.under_root(f"{STATE_DIR}/outbox.db")

    @property
    def workspaces(self) -> str:
        """The folder of the workspaces' tokens."""
        return self.under_root(f"{STATE_DIR}/workspaces")

    @property
    def jwks(self) -> str:
        """The control plane's public keys as last fetched."""
        return self.under_root(f"{STATE_DIR}/jwks.json")

    @property
    def packages(self) -> str:
        """Debug packages that the control plane has not acknowledged."""
        return self.under_root(f"{STATE_DIR}/packages")

    @property
    def outgoing(self) -> str:
        """Private temporary files of what is being sent to the control plane."""
        return self.under_root("/var/lib/sammy/outgoing")

    @property
    def tls_mark(self) -> str:
        """Marks the node's TLS key as one that the agent created."""
        return self.under_root(f"{STATE_DIR}/tls-key-is-ours")

    @property
    def tls_key(self) -> str:
        """The node's TLS key."""
        return self.under_root("/etc/sammy/tls/node.key")

    @property
    def tls_certificate(self) -> str:
        """Its certificate."""
        return self.under_root("/etc/sammy/tls/node.crt")
