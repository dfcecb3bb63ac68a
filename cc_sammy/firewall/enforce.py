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

    :param input_policy: `accept` opens the host's INPUT policy, `keep` leaves it, but for the legacy trap.
    :raises SammyError: it is not in force, then what was in force before still is; or it is and could not be kept.
    """
    with exclusive(host):
        foreign = _ForeignRulesThread(host)
        chosen = backend(policy.backend)
        notes = dry_run.check_once(host, policy, chosen)
        chosen.load(host, policy)
        files.remove(boot_files.REMOVED)
        found = foreign.result()

        from cc_sammy.firewall.backends import foreign_rules  # imported while the kernel worked

        for name in NAMES:
            if name != policy.backend and found.may_hold(name):
                backend(name).unload(host)
                notes.append(f"the rules of backend {name} were taken away")
        return (
            notes
            + foreign_rules.open_input(host, input_policy, found)
            + foreign_rules.warnings(policy.agent_port, found)
        )


class _ForeignRulesThread(threading.Thread):
    """Inspects foreign rules in a thread while the rules are tried and loaded, or read.

    It begins before the loading: an nft that ends while the kernel frees old rules waits for that, 10 ms and more.
    """

    def __init__(self, host: Host) -> None:
        super().__init__(name="firewall-foreign-rules", daemon=True)
        self._host = host
        self._result: foreign_rules.ForeignRules | None = None
        self.start()

    def run(self) -> None:
        from cc_sammy.firewall.backends import foreign_rules

        self._result = foreign_rules.inspect(self._host)

    def result(self) -> foreign_rules.ForeignRules:
        """Wait for the thread; inspect again where it failed, so that the error is raised here."""
        from cc_sammy.firewall.backends import foreign_rules

        self.join()
        return self._result or foreign_rules.inspect(self._host)


def check(host: Host, policy: Policy) -> list[str]:
    """Return each difference between the policy and the kernel in plain words; empty when it is in force.

    :raises SammyError: the kernel could not be read.
    """
    with exclusive(host):
        foreign = _ForeignRulesThread(host)
        problems: list[str] = backend(policy.backend).drift(host, policy)
        found = foreign.result()
        for name in NAMES:
            if name != policy.backend and found.may_hold(name):
                problems.append(f"backend {name} still holds rules of ours, though {policy.backend} is configured")
        return problems


def remove(host: Host, why: str = "Removed by `sammy firewall remove`.") -> None:
    """Lift the firewall until the next `apply`, over reboots too.

    :param why: what the mark that keeps it so says.
    :raises SammyError: the kernel refused.
    """
    with exclusive(host):
        boot_files.mark_removed(why)
        for name in active_backends(host):
            backend(name).unload(host)


def active_backends(host: Host) -> list[str]:
    """Return the backends that have rules or files of ours."""
    return [name for name in NAMES if backend(name).present(host)]


def status(host: Host, name: str) -> dict[str, Any]:
    """Return what is loaded now, and what others close.

    :raises SammyError: the kernel could not be read.
    """
    from cc_sammy.firewall.backends import foreign_rules

    return {
        "backend": name,
        "removed": boot_files.is_removed(),
        **backend(name).status(host),
        **foreign_rules.status(host),
    }
