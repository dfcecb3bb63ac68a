# SPDX-License-Identifier: Apache-2.0
"""What is done when our own rules keep the control plane out: `trial`, `mark-known-good`, `roll-back` for the watchdog.

The agent's watchdog decides (sammy_agent/daemon/firewall_watch/lockout.py); these are its actions. A lift is a rule
that opens the agent's port until a time and no longer: the kernel itself ends it, whatever is killed in between. A
repair ends a trial sooner, and leaves an operator's `lift` its time.
Rules under which the control plane connected are stored as known good; a roll-back puts those in force instead of the
configured ones, or lifts the firewall where there are none. It holds until `sammy firewall apply`, or until the
configuration asks for other rules than those that were rolled back.
"""

from __future__ import annotations

import ipaddress
import json
import time
from typing import Any

from cc_sammy.common import files
from cc_sammy.errors import SammyError
from cc_sammy.firewall import boot_files, enforce
from cc_sammy.firewall.lock import exclusive
from cc_sammy.firewall.model.policy import Policy
from cc_sammy.host.host import Host

KNOWN_GOOD = boot_files.FOLDER + "/proven.json"
ROLLED_BACK = boot_files.FOLDER + "/rolled-back.json"
LIFTED = boot_files.FOLDER + "/lifted"  # by hand, until these seconds since the epoch
NETWORKS = {
    "allow4": ipaddress.IPv4Network,
    "allow6": ipaddress.IPv6Network,
    "ssh4": ipaddress.IPv4Network,
    "ssh6": ipaddress.IPv6Network,
}


def lift(host: Host, policy: Policy, seconds: int, *, by_hand: bool) -> None:
    """Open the agent's port to all for so many seconds; ssh and the rest stay as they are.

    :param by_hand: an operator wants it: no repair ends it.
    :raises SammyError: the kernel refused, or there are no rules to lift; nothing was changed.
    """
    with exclusive(host):
        chosen = enforce.backend(policy.backend)
        if not chosen.present(host) or chosen.drift(host, policy):
            raise SammyError("the configured rules are not in force, so there is nothing to lift", "Run a repair first")
        until = int(time.time()) + seconds
        chosen.lift(host, policy.agent_port, until)
        if by_hand:
            files.write_text(LIFTED, f"{until}\n")


def lifted_until() -> int | None:
    """Return until when an operator lifted the firewall, in seconds since the epoch; None when that is over."""
    try:
        until = int(files.read_text(LIFTED) or "")
    except ValueError:
        return None
    return until if until > time.time() else None


def mark_known_good(host: Host, policy: Policy) -> None:
    """Store the rules in force as known good: the control plane connected under them.

    :raises SammyError: others are in force, or the disk is full.
    """
    problems = enforce.check(host, policy)
    if problems:
        raise SammyError(f"other rules than these are in force: {problems[0]}", "Run a repair first")
    try:
        files.write_text(KNOWN_GOOD, to_text(policy), mode=0o600)
    except OSError as error:
        raise SammyError(f"{KNOWN_GOOD} could not be written: {error.strerror}", "Make room on the disk") from error


def roll_back(host: Host, wanted: Policy, input_policy: str, why: str) -> tuple[Policy | None, list[str]]:
    """Put the last known good rules in force, or lift the firewall; return what is in force, if any, and notes.

    Killed before its end it leaves rules in force, never none: a repair continues from the note on disk.

    :param wanted: what the configuration asks for.
    :raises SammyError: it could not be done.
    """
    good = _known_good(wanted)
    known_good = good is not None and to_text(good) != to_text(effective_policy(wanted))
    note = {"why": why, "at": int(time.time()), "restored": known_good, "refused": to_text(wanted)}
    try:
        files.write_text(ROLLED_BACK, json.dumps(note) + "\n", mode=0o600, sync=True)
    except OSError as error:
        raise SammyError(f"{ROLLED_BACK} could not be written: {error.strerror}", "Make room on the disk") from error
    if good is not None and known_good:
        return good, enforce.apply(host, good, input_policy)
    enforce.remove(host, f"Lifted by the agent: {why}.")
    return None, []


def active_rollback(wanted: Policy) -> dict[str, Any] | None:
    """Return why and when the wanted rules were rolled back, and whether good ones were `restored`; None: not so."""
    try:
        note = json.loads(files.read_text(ROLLED_BACK) or "")
        if note["refused"] != to_text(wanted):
            return None
        return {"why": str(note["why"]), "at": int(note["at"]), "restored": note["restored"] is True}
    except (ValueError, KeyError, TypeError):
        return None


def effective_policy(wanted: Policy) -> Policy:
    """Return the rules that should be in force now: the wanted ones, or after a roll-back the good ones."""
    note = active_rollback(wanted)
    good = _known_good(wanted) if note is not None and note["restored"] else None
    return wanted if good is None else good


def clear() -> None:
    """Forget a roll-back and a lift: the configured rules are the wanted ones again."""
    files.remove(ROLLED_BACK)
    files.remove(LIFTED)


def to_text(policy: Policy) -> str:
    """Return the policy as JSON, without what the machine adds of itself: a roll-back outlives a change of routes."""
    fields = policy._replace(uplinks=())._asdict()
    return json.dumps({key: [str(one) for one in value] if key in NETWORKS else value for key, value in fields.items()})


def from_text(text: str | None) -> Policy | None:
    """Return the policy again; None when there is none, or a damaged one."""
    try:
        fields = dict(json.loads(text or ""))
        for key, kind in NETWORKS.items():
            fields[key] = tuple(kind(one) for one in fields[key])
        return Policy(**{**fields, "uplinks": ()}).checked()
    except (ValueError, KeyError, TypeError, SammyError):
        return None


def _known_good(wanted: Policy) -> Policy | None:
    good = from_text(files.read_text(KNOWN_GOOD))
    return None if good is None else good._replace(uplinks=wanted.uplinks)
