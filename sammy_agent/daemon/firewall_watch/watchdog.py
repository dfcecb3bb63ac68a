# SPDX-License-Identifier: Apache-2.0
"""Puts the firewall's rules back when another program took them away, and gives them up when they lock us out.

`nft flush ruleset` is a common first line: the network monitor hears the kernel; the firewall's own program compares
and mends. Two programs that undo each other must not make a machine busy: checks are spread, further apart with each
repair, and told once in ten minutes. Not all changes are heard of (iptables-legacy makes none known), so there is a
check now and then all the same, and one at the start: an agent that was killed in the middle of a trial puts the rules
back when it begins. Whether the rules keep the control plane out is judged in `lockout`.
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
from sammy_agent.base.runtime.worker import Worker
from sammy_agent.daemon.firewall_watch import lockout
from sammy_agent.daemon.firewall_watch.inbound_contact import InboundContacts
from sammy_agent.daemon.firewall_watch.lockout import Action, RulesState

LOG = logging.getLogger(__name__)
KEPT = "*.[nr]*"  # applied.nft, metadata.nft, and the iptables backend's *.rules
METADATA, ROLLED_BACK = "metadata.nft", "rolled-back.json"
DEADLINE = 60.0
MIN_INTERVAL = 5.0  # seconds between two checks at the least: Docker's start alone changes rules for seconds
POLL_INTERVAL = 900.0  # seconds until a check without news
LOG_INTERVAL = 600.0


def ask(*words: str) -> dict[str, Any]:
    """Run a verb of the firewall; return its answer, {"ok": false, "error": …} when it gave none."""
    done = process.run([*paths.FIREWALL, *words, "--json"], DEADLINE, directory="/")
    try:
        answer: Any = json.loads(done.text)  # it answers with a status other than 0, too
    except ValueError:
        answer = None
    return answer if isinstance(answer, dict) else {"ok": False, "error": done.failure or "no answer"}


class FirewallWatchdog(Worker):
    """Mends after the kernel spoke of changed rules, and watches whether the control plane still comes in."""

    def __init__(
        self,
        inbound: InboundContacts,
        outbound: Callable[[], bool],
        firewall: Callable[..., dict[str, Any]] = ask,
        folder: str = paths.FIREWALL_FOLDER,
        record: RecordEvent = discard_event,
    ) -> None:
        """Take who came in, whether what we send arrives, and the firewall with the folder it keeps its rules in."""
        super().__init__("guard")
        self._inbound, self._outbound = inbound, outbound
        self._firewall, self._folder, self._record = firewall, folder, record
        self._heard = True
        self._not_before = self._tell_from = self._unasked = 0.0
        self._backoff = Backoff(first=MIN_INTERVAL, longest=60.0)
        self._watch = RulesState(time.monotonic())
        self._rules: tuple[tuple[str, int], ...] = ()
        self._rolled_back: dict[str, Any] | None = None
        self.repairs = 0

    def on_rules_changed(self) -> None:
        """Take the news that rules changed."""
        self._heard = True
        self.wake()

    def problem(self) -> str:
        """Return in words that the rules were given up; empty when they were not."""
        note = self._rolled_back
        if note is None:
            return ""
        now = "the rules of before are in force" if note["restored"] else "the agent's port is open to all"
        return f"firewall rolled back, {now}: {note['why']}. See `sammy firewall status`"

    def snapshot(self) -> dict[str, Any]:
        """Return the `firewall` part of the socket's status."""
        return {"repairs": self.repairs, "lifted": self._watch.lifted is not None, "problem": self.problem()}

    def run_once(self) -> float | None:
        """Check when there is news, and not sooner after the last time than is good for the machine."""
        if not self._kept() and not os.path.exists(f"{self._folder}/{ROLLED_BACK}"):
            return None  # nothing was applied on this machine, or it was removed by hand
        # during a trial the news is our own lifting; its end puts the rules back, which is a check
        wait = lockout.LOOK_AGAIN if self._watch.lifted is not None else self._check()
        if not self._look_at_rules():
            return wait
        act, again = lockout.decide(self._watch, self._inbound.stats(), self._outbound(), time.monotonic())
        acts = {
            Action.MARK_GOOD: self._mark_known_good,
            Action.OPEN_FOR_TRIAL: self._open_for_trial,
            Action.RESTORE: self._restore,
            Action.ROLL_BACK: self._roll_back,
        }
        if act in acts:
            acts[act]()
            again = lockout.LOOK_IN_TRIAL if self._watch.lifted is not None else lockout.LOOK_AGAIN
        return min(wait, again)

    def _check(self) -> float:
        """Compare and mend if there is reason to; return the seconds until the next reason."""
        now = time.monotonic()
        if not self._heard and now < self._unasked:
            return self._unasked - now
        if now < self._not_before:
            return self._not_before - now
        self._heard = False
        self._unasked = now + POLL_INTERVAL
        answer = self._repair()
        if answer.get("repaired"):
            self.repairs += 1
            self._not_before = time.monotonic() + self._backoff.next_delay()
            what = f"the firewall's rules were changed by another program and are back: {answer['repaired'][0]}"
            self._record(kinds.FIREWALL_REPAIRED, what, detail={"differences": answer["repaired"]})
            self._tell(what)
        elif answer.get("ok"):
            self._backoff.reset()
        return self._not_before - time.monotonic() if self._heard else POLL_INTERVAL

    def _repair(self) -> dict[str, Any]:
        answer = self._firewall("repair")
        self._not_before = time.monotonic() + MIN_INTERVAL
        if answer.get("ok"):
            self._rolled_back = answer.get("rolled_back")
            return answer
        self._heard = True  # not known to be in force: asked again
        self._not_before = time.monotonic() + self._backoff.next_delay()
        self._record(kinds.FIREWALL_UNCHECKED, f"the firewall could not be checked: {answer.get('error')}")
        self._tell(f"the firewall could not be checked: {answer.get('error')}. See `sammy firewall check`")
        return answer

    def _look_at_rules(self) -> bool:
        """Begin a new watch when other rules than before are kept for boot; tell whether there are any.

        An apply of the same rules writes nothing.
        """
        rules = self._rules_kept()
        if rules != self._rules:
            self._rules, self._watch = rules, RulesState(time.monotonic())
        return bool(rules)

    def _rules_kept(self) -> tuple[tuple[str, int], ...]:
        found = []
        for path in self._kept():
            with contextlib.suppress(FileNotFoundError):
                found.append((path, os.stat(path).st_mtime_ns))
        return tuple(one for one in found if not one[0].endswith(METADATA))

    def _kept(self) -> list[str]:
        return sorted(glob.glob(f"{self._folder}/{KEPT}"))

    def _mark_known_good(self) -> None:
        self._watch = self._watch._replace(resolved=bool(self._firewall("vouch").get("ok")))

    def _restore(self) -> None:
        self._watch = self._watch._replace(lifted=None, resolved=True)
        self._heard = False
        self._repair()
        what = "the control plane did not come in with the firewall lifted either: its rules are back, and not at fault"
        self._record(kinds.FIREWALL_NOT_AT_FAULT, what)
        LOG.warning(what)

    def _open_for_trial(self) -> None:
        rhythm = self._inbound.stats()
        seconds = lockout.trial_seconds(rhythm)
        # the kernel ends it a little after us: should we be killed, or hang
        answer = self._firewall("trial", str(int(seconds) + 5))
        if not answer.get("ok"):
            self._watch = self._watch._replace(resolved=True)
            LOG.warning("the firewall could not be lifted to see whether it keeps us out: %s", answer.get("error"))
            return
        self._watch = self._watch._replace(lifted=time.monotonic())
        what = (
            f"the control plane has not come in since the firewall's rules changed, {lockout.patience(rhythm):.0f} s "
            f"and more, though it is reached from here: the agent's port is open to all for {seconds:.0f} s"
        )
        self._record(kinds.FIREWALL_LIFTED, what)
        LOG.warning(what)

    def _roll_back(self) -> None:
        answer = self._firewall("roll-back")
        if not answer.get("ok"):  # the trial ends as one without a result, and the kernel closes the port
            LOG.error("the firewall keeps the control plane out and could not be rolled back: %s", answer.get("error"))
            self._watch = self._watch._replace(lifted=None, resolved=True)
            self._heard = True
            return
        self._rolled_back = answer.get("rolled_back")
        self._rules, self._watch = self._rules_kept(), RulesState(time.monotonic())
        self._record(kinds.FIREWALL_ROLLED_BACK, self.problem())
        LOG.error(self.problem())

    def _tell(self, words: str) -> None:
        if time.monotonic() >= self._tell_from:
            self._tell_from = time.monotonic() + LOG_INTERVAL
            LOG.warning("%s (repairs so far: %d)", words, self.repairs)
