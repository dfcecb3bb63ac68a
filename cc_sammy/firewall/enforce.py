# SPDX-License-Identifier: Apache-2.0
"""Apply, check, remove, status: what is done with a policy, whichever backend carries it.

The order of an apply is its safety: the rules are tried where they can hurt nobody, loaded in one transaction, read
back from the kernel, kept for the next boot, and only then is the other backend's copy taken away.
"""

from __future__ import annotations

import threading
from types import ModuleType
from typing import TYPE_CHECKING, Any

from cc_sammy.common import files
from cc_sammy.firewall import boot_files, dry_run
from cc_sammy.firewall.lock import exclusive
from cc_sammy.firewall.model.policy import Policy
from cc_sammy.host.host import Host

if TYPE_CHECKING:
    from cc_sammy.firewall.backends import foreign_rules

NAMES = ("nftables", "iptables")


def backend(name: str) -> ModuleType:
    """Return the module of a backend; imported late, because a run mostly needs one."""
    if name == "iptables":
        from cc_sammy.firewall.backends import iptables

        return iptables
    from cc_sammy.firewall.backends import nftables

    return nftables


def apply(host: Host, policy: Policy, input_policy: str = "keep") -> list[str]:
    """Enforce the policy and keep it for the next boot; return what the operator should know.

    :param input_policy: `accept` opens the host's INPUT policy, `keep` leaves it, but for the peer's old trap.
    :raises SammyError: it is not in force, then what was in force before still is; or it is and could not be kept.
    """
    with exclusive(host):
        looking = _Looking(host)
        chosen = backend(policy.backend)
        notes = dry_run.once(host, policy, chosen)
        chosen.load(host, policy)
        files.remove(boot_files.REMOVED)
        seen = looking.seen()

        from cc_sammy.firewall.backends import foreign_rules  # imported while the kernel worked

        for name in NAMES:
            if name != policy.backend and seen.may_hold(name):
                backend(name).unload(host)
                notes.append(f"the rules of backend {name} were taken away")
        return (
            notes
            + foreign_rules.open_input(host, input_policy, seen)
            + foreign_rules.still_closed(policy.agent_port, seen)
        )


class _Looking(threading.Thread):
    """A look at what others hold, beside the trial and the loading, or the reading.

    It begins before the loading: an nft that ends while the kernel frees old rules waits for that, 10 ms and more.
    """

    def __init__(self, host: Host) -> None:
        super().__init__(name="firewall-look", daemon=True)
        self._host = host
        self._seen: foreign_rules.Seen | None = None
        self.start()

    def run(self) -> None:
        from cc_sammy.firewall.backends import foreign_rules

        self._seen = foreign_rules.look(self._host)

    def seen(self) -> foreign_rules.Seen:
        """Wait for the look and return it; it is taken again where it failed, so that the error is told."""
        from cc_sammy.firewall.backends import foreign_rules

        self.join()
        return self._seen or foreign_rules.look(self._host)


def check(host: Host, policy: Policy) -> list[str]:
    """Return each difference between the policy and the kernel in plain words; empty when it is in force.

    :raises SammyError: the kernel could not be read.
    """
    with exclusive(host):
        looking = _Looking(host)
        problems: list[str] = backend(policy.backend).drift(host, policy)
        seen = looking.seen()
        for name in NAMES:
            if name != policy.backend and seen.may_hold(name):
                problems.append(f"backend {name} still holds rules of ours, though {policy.backend} is configured")
        return problems


def remove(host: Host, why: str = "Removed by `sammy firewall remove`.") -> None:
    """Lift the firewall until the next `apply`, over reboots too.

    :param why: what the mark that keeps it so says.
    :raises SammyError: the kernel refused.
    """
    with exclusive(host):
        boot_files.mark_removed(why)
        for name in loaded(host):
            backend(name).unload(host)


def loaded(host: Host) -> list[str]:
    """Return the backends that hold anything of ours."""
    return [name for name in NAMES if backend(name).present(host)]


def status(host: Host, name: str) -> dict[str, Any]:
    """Return what is loaded now, and what others close.

    :raises SammyError: the kernel could not be read.
    """
    from cc_sammy.firewall.backends import foreign_rules

    return {
        "backend": name,
        "removed": boot_files.is_removed(),
        **backend(name).facts(host),
        **foreign_rules.facts(host),
    }
