# SPDX-License-Identifier: Apache-2.0
"""Restores the firewall's rules when another program removed them, and rolls them back when they lock us out.

`nft flush ruleset` is a common first line of scripts: the network monitor reports the kernel's change, the firewall's
own program compares and repairs. Two programs that undo each other must not keep a machine busy: checks are spread,
further apart with each repair, and logged once in ten minutes. Not every change is reported (iptables-legacy's are
not), so there is a check every 15 minutes as well, and one at the start: an agent that was killed in the middle of a
trial restores the rules when it starts. Whether the rules keep the control plane out is decided in `lockout`.
"""

from __future__ import annotations

import contextlib
import glob
import json
import logging
import os
import time
from collections.abc import Callable
from typing import Any

from cc_sammy.contract import paths
from sammy_agent.base.events import kinds
from sammy_agent.base.events.event import RecordEvent, discard_event
from sammy_agent.base.runtime import process
from sammy_agent.base.runtime.backoff import Backoff
from sammy_agent.base.runtime.log_throttle import LogThrottle, also_suppressed
from sammy_agent.base.runtime.worker import Worker
from sammy_agent.daemon.firewall_watch import lockout
from sammy_agent.daemon.firewall_watch.inbound_contact import InboundContacts
from sammy_agent.daemon.firewall_watch.lockout import Action, RulesState

LOG = logging.getLogger(__name__)
BOOT_FILES = "*.[nr]*"  # applied.nft, metadata.nft, and the iptables backend's *.rules
METADATA, ROLLED_BACK = "metadata.nft", "rolled-back.json"
COMMAND_DEADLINE = 60.0
MIN_INTERVAL = 5.0  # seconds between two checks: Docker's start alone changes rules for seconds
POLL_INTERVAL = 900.0  # seconds until a check without a reported change
LOG_INTERVAL = 600.0


def ask(*words: str) -> dict[str, Any]:
    """Run a command of the firewall; return its answer, {"ok": false, "error": …} when it gave none."""
    done = process.run([*paths.FIREWALL, *words, "--json"], COMMAND_DEADLINE, directory="/")
    try:
        answer: Any = json.loads(done.text)  # it answers with a status other than 0, too
    except ValueError:
        answer = None
    return answer if isinstance(answer, dict) else {"ok": False, "error": done.failure or "no answer"}


class FirewallWatchdog(Worker):
    """Repairs after the kernel reported changed rules, and watches whether the control plane still connects."""

    def __init__(
        self,
        inbound: InboundContacts,
        outbound: Callable[[], bool],
        firewall: Callable[..., dict[str, Any]] = ask,
        folder: str = paths.FIREWALL_FOLDER,
        record: RecordEvent = discard_event,
    ) -> None:
        """Take the inbound contacts, whether our requests arrive, the firewall, and the folder of its boot files."""
        super().__init__("guard")
        self._inbound, self._outbound = inbound, outbound
        self._firewall, self._folder, self._record = firewall, folder, record
        self._rules_changed = True
        self._not_before = self._next_poll = 0.0
        self._log_throttle = LogThrottle(LOG_INTERVAL)
        self._backoff = Backoff(first=MIN_INTERVAL, longest=60.0)
        self._state = RulesState(time.monotonic())
        self._rules: tuple[tuple[str, int], ...] = ()
        self._rolled_back: dict[str, Any] | None = None
        self.repairs = 0

    def on_rules_changed(self) -> None:
        """Check now, or as soon as the last check is long enough ago."""
        self._rules_changed = True
        self.wake()

    def problem(self) -> str:
        """Return that the rules were rolled back, for people; empty when they were not."""
        rollback = self._rolled_back
        if rollback is None:
            return ""
        now = "the previous rules are in force" if rollback["restored"] else "the agent's port is open to all"
        return f"firewall rolled back, {now}: {rollback['why']}. See `sammy firewall status`"

    def snapshot(self) -> dict[str, Any]:
        """Return the `firewall` part of the socket's status."""
        return {"repairs": self.repairs, "lifted": self._state.lifted is not None, "problem": self.problem()}

    def run_once(self) -> float | None:
        """Check when rules changed, at most every MIN_INTERVAL, and take the next step of the lock-out decision."""
        if not self._boot_files() and not os.path.exists(f"{self._folder}/{ROLLED_BACK}"):
            return None  # nothing was applied on this machine, or it was removed by hand
        # during a trial the change is our own; its end restores the rules, which is a check
        wait = lockout.DECISION_INTERVAL if self._state.lifted is not None else self._check()
        if not self._track_rules():
            return wait
        action, again = lockout.decide(self._state, self._inbound.stats(), self._outbound(), time.monotonic())
        actions = {
            Action.MARK_GOOD: self._mark_known_good,
            Action.OPEN_FOR_TRIAL: self._open_for_trial,
            Action.RESTORE: self._restore,
            Action.ROLL_BACK: self._roll_back,
        }
        if action in actions:
            actions[action]()
            again = lockout.TRIAL_INTERVAL if self._state.lifted is not None else lockout.DECISION_INTERVAL
        return min(wait, again)

    def _check(self) -> float:
        """Compare and repair if it is due; return the seconds until the next check."""
        now = time.monotonic()
        if not self._rules_changed and now < self._next_poll:
            return self._next_poll - now
        if now < self._not_before:
            return self._not_before - now
        self._rules_changed = False
        self._next_poll = now + POLL_INTERVAL
        answer = self._repair()
        if answer.get("repaired"):
            self.repairs += 1
            self._not_before = time.monotonic() + self._backoff.next_delay()
            message = f"the firewall's rules were changed by another program and are restored: {answer['repaired'][0]}"
            detail = {"differences": answer["repaired"], **self._notes(answer)}
            self._record(kinds.FIREWALL_REPAIRED, message, detail=detail)
            self._warn(message)
        elif answer.get("ok"):
            self._backoff.reset()
        return self._not_before - time.monotonic() if self._rules_changed else POLL_INTERVAL

    def _repair(self) -> dict[str, Any]:
        answer = self._firewall("repair")
        self._not_before = time.monotonic() + MIN_INTERVAL
        if answer.get("ok"):
            self._rolled_back = answer.get("rolled_back")
            return answer
        self._rules_changed = True  # not known to be in force: checked again
        self._not_before = time.monotonic() + self._backoff.next_delay()
        self._record(kinds.FIREWALL_UNCHECKED, f"the firewall could not be checked: {answer.get('error')}")
        self._warn(f"the firewall could not be checked: {answer.get('error')}. See `sammy firewall check`")
        return answer

    def _track_rules(self) -> bool:
        """Start over with the lock-out decision when the boot files changed; return whether there are rules.

        An apply of the same rules writes nothing.
        """
        rules = self._rule_versions()
        if rules != self._rules:
            self._rules, self._state = rules, RulesState(time.monotonic())
        return bool(rules)

    def _rule_versions(self) -> tuple[tuple[str, int], ...]:
        found = []
        for path in self._boot_files():
            with contextlib.suppress(FileNotFoundError):
                found.append((path, os.stat(path).st_mtime_ns))
        return tuple(one for one in found if not one[0].endswith(METADATA))

    def _boot_files(self) -> list[str]:
        return sorted(glob.glob(f"{self._folder}/{BOOT_FILES}"))

    def _mark_known_good(self) -> None:
        self._state = self._state._replace(resolved=bool(self._firewall("vouch").get("ok")))

    def _restore(self) -> None:
        self._state = self._state._replace(lifted=None, resolved=True)
        self._rules_changed = False
        self._repair()
        message = (
            "the control plane did not connect with the firewall open either: rules restored, they are not the cause"
        )
        self._record(kinds.FIREWALL_NOT_AT_FAULT, message)
        LOG.warning(message)

    def _open_for_trial(self) -> None:
        stats = self._inbound.stats()
        seconds = lockout.trial_seconds(stats)
        # the kernel ends it a little later by itself, in case the agent is killed or hangs
        answer = self._firewall("trial", str(int(seconds) + 5))
        if not answer.get("ok"):
            self._state = self._state._replace(resolved=True)
            LOG.warning("the firewall could not be opened for a trial: %s", answer.get("error"))
            return
        self._state = self._state._replace(lifted=time.monotonic())
        message = (
            f"the control plane has not connected for over {lockout.patience(stats):.0f} s since the firewall's rules "
            f"changed, though it answers our requests: the agent's port is open to all for {seconds:.0f} s"
        )
        self._record(kinds.FIREWALL_LIFTED, message)
        LOG.warning(message)

    def _roll_back(self) -> None:
        answer = self._firewall("roll-back")
        if not answer.get("ok"):  # the trial ends without a result, and the kernel closes the port
            LOG.error("the firewall keeps the control plane out and could not be rolled back: %s", answer.get("error"))
            self._state = self._state._replace(lifted=None, resolved=True)
            self._rules_changed = True
            return
        self._rolled_back = answer.get("rolled_back")
        self._rules, self._state = self._rule_versions(), RulesState(time.monotonic())
        self._record(kinds.FIREWALL_ROLLED_BACK, self.problem(), detail=self._notes(answer) or None)
        LOG.error(self.problem())

    def _notes(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Log what the operator should know of rules that were applied; return it for an event's detail."""
        notes = answer.get("notes") or []
        for note in notes:
            if self._log_throttle.allow(note) is not None:
                LOG.warning("firewall: %s", note)
        return {"notes": notes} if notes else {}

    def _warn(self, message: str) -> None:
        suppressed = self._log_throttle.allow()
        if suppressed is not None:
            LOG.warning("%s (repairs so far: %d)%s", message, self.repairs, also_suppressed(suppressed))
