# SPDX-License-Identifier: Apache-2.0
"""`sammy firewall apply|check|status|refresh|repair|remove`, for people and, with --json, for scripts.

Exit status: 0 all is as it should be, 1 it is not or could not be done, 2 wrong usage.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cc_sammy.common import files
from cc_sammy.contract.firewall_config import FirewallConfig
from cc_sammy.errors import SammyError
from cc_sammy.firewall import boot_files, enforce, rollback
from cc_sammy.firewall.model import policy
from cc_sammy.host.host import Host

if TYPE_CHECKING:
    import argparse

VerbResult = tuple[bool, dict[str, Any], list[str]]

VERBS = {
    "apply": "enforce the configured rules now and at every boot",
    "check": "compare the kernel's rules with the configuration",
    "status": "show what is loaded and what was dropped",
    "refresh": "fetch Cloudflare's networks and, when they changed, apply them",
    "repair": "apply only where the kernel differs from the configuration",
    "remove": "lift the firewall until the next apply, over reboots too",
    "lift": "open the agent's port to all for a minute, to see whether the rules block a client",
}
# Internal commands for the agent's watchdog, not shown in --help: what it does when the control plane stays away.
INTERNAL_COMMANDS = {
    "trial": "lift, but a repair ends it: an agent that is restarted does not leave the port open",
    "mark-known-good": "store the rules in force as good ones: the control plane connected under them",
    "vouch": "the former name of mark-known-good",
    "roll-back": "restore the last known good rules, or lift the firewall where there are none",
}
LIFT_SECONDS, MAX_LIFT_SECONDS = 60, 900


def add_parser(subparsers: Any) -> None:
    """Add `firewall` and its verbs to the command's subparsers."""
    parser = subparsers.add_parser("firewall", help="the guard of the agent's port", description=__doc__)
    add_verbs(parser)


def add_verbs(parser: argparse.ArgumentParser) -> None:
    """Add the verbs to a parser."""
    verbs = parser.add_subparsers(dest="firewall_verb", metavar="VERB", required=True)
    for name, meaning in VERBS.items():
        verb = verbs.add_parser(name, help=meaning, description=meaning)
        verb.add_argument("--json", action="store_true", help="print one JSON object")
        if name == "lift":
            verb.add_argument("--seconds", type=int, default=LIFT_SECONDS, help="how long (default: %(default)s)")


def run(args: argparse.Namespace, host: Host, config: FirewallConfig, agent_port: int) -> int:
    """Run the verb that was parsed; return the exit status."""
    actions: dict[str, Callable[[Host, FirewallConfig, int], VerbResult]] = {
        "apply": _apply,
        "check": _check,
        "status": _status,
        "refresh": _refresh,
        "repair": _repair,
        "remove": _remove,
        "lift": lambda *machine: _lift(*machine, seconds=getattr(args, "seconds", LIFT_SECONDS), by_hand=True),
        "trial": lambda *machine: _lift(*machine, seconds=args.seconds, by_hand=False),
        "mark-known-good": _mark_known_good,
        "vouch": _mark_known_good,
        "roll-back": _roll_back,
    }
    action = actions.get(args.firewall_verb)
    if action is None:
        print(f"sammy firewall: unknown verb; choose from {', '.join(VERBS)}", file=sys.stderr)
        return 2
    try:
        fine, facts, lines = action(host, config, agent_port)
    except SammyError as error:
        if args.json:
            print(json.dumps({"verb": args.firewall_verb, "ok": False, "error": str(error), "code": error.code.value}))
        else:
            print(f"sammy firewall {args.firewall_verb}: {error}", file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps({"verb": args.firewall_verb, "ok": fine, **facts}))
    else:
        print("\n".join(lines))
    return 0 if fine else 1


def _apply(host: Host, config: FirewallConfig, agent_port: int) -> VerbResult:
    if not config.enabled:
        raise SammyError("firewall.enabled is false, so nothing was applied", "Set it to true first")
    wanted = policy.from_config(config, agent_port)
    rollback.clear()
    notes = enforce.apply(host, wanted, config.input_policy)
    facts = {"agent_port": agent_port, "ssh": wanted.ssh, "backend": wanted.backend, "notes": notes}
    line = f"applied and read back: agent port {agent_port} guarded, ssh {_ssh(config, wanted.ssh)}"
    return True, facts, [line, *(f"note: {note}" for note in notes)]


def _check(host: Host, config: FirewallConfig, agent_port: int) -> VerbResult:
    if not config.enabled:
        problems = [
            f"firewall.enabled is false, yet backend {name} holds rules" for name in enforce.active_backends(host)
        ]
    elif boot_files.is_removed():
        problems = [f"{_removed()}: nothing guards the agent port"]
    else:
        wanted = policy.from_config(config, agent_port)
        problems = enforce.check(host, rollback.effective_policy(wanted))
        note = rollback.active_rollback(wanted)
        until = rollback.lifted_until()
        if until:
            problems.insert(0, f"agent port {agent_port} was lifted by hand {_until(until)}")
        if note is not None and note["restored"]:
            problems.insert(0, f"the agent went back to the previous rules, because {note['why']}")
    next_step = "sammy firewall apply" if config.enabled else "sammy firewall remove"
    from cc_sammy.firewall import metadata_table

    opened = metadata_table.drift(host)
    if opened and not problems:
        next_step = "sammy firewall repair"
    problems += opened
    if not problems:
        return True, {"problems": []}, ["the kernel holds what the configuration says"]
    return False, {"problems": problems, "next_step": next_step}, [*problems, f"`{next_step}` fixes it."]


def _status(host: Host, config: FirewallConfig, agent_port: int) -> VerbResult:
    facts = {"enabled": config.enabled, "agent_port": agent_port, **enforce.status(host, config.backend)}
    state = "loaded" if facts["loaded"] else _removed() if facts["removed"] else "not loaded"
    with contextlib.suppress(SammyError):  # also with a wrong configuration it is shown what is loaded
        facts["rolled_back"] = rollback.active_rollback(policy.from_config(config, agent_port))
    backend = " ".join(filter(None, (config.backend, facts.get("variant"))))
    rows = [("firewall", f"{state} ({backend})"), ("agent port", str(agent_port))]
    if facts.get("rolled_back"):
        rows.append(
            ("rolled back", f"{facts['rolled_back']['why']}; `sammy firewall apply` tries the configured rules again")
        )
    rows.append(("at boot", "yes" if facts["kept_for_boot"] else "no"))
    rows += [(f"networks {name}", str(count)) for name, count in facts["networks"].items() if count]
    rows += [("rule", name) for name in facts["rules"]]
    dropped = facts["dropped"].items()
    rows += [("dropped", f"{count['packets']:>8} packets: {name}") for name, count in dropped]
    rows += [("closed by others", f"{name} has policy drop") for name in facts["closed_elsewhere"]]
    rows += [("closed by others", f"{name} has policy DROP") for name in facts["input_policy_drop"]]
    rows += [("also active", name) for name in facts["other_firewalls"]]
    width = max(len(label) for label, _ in rows)
    fine = facts["loaded"] == config.enabled
    return fine, facts, [f"{label:<{width}}  {value}" for label, value in rows]


def _refresh(host: Host, config: FirewallConfig, agent_port: int) -> VerbResult:
    import time

    from cc_sammy.firewall import cloudflare_refresh

    wanted = config.allow == "cloudflare" or (isinstance(config.allow, tuple) and "cloudflare" in config.allow)
    if not wanted:
        return True, {"changed": False, "applied": False}, ["firewall.allow is not cloudflare: nothing to fetch"]
    state, changed = cloudflare_refresh.refresh(config.ranges_url, time.time())
    # applied also when unchanged but not in force: an earlier refresh may have been killed after its fetch
    differences: list[str] = []
    notes: list[str] = []
    if config.enabled and not boot_files.is_removed():
        differences, notes = _apply_where_different(host, config, agent_port)
    applied = bool(differences)
    facts = {"changed": changed, "applied": applied, "networks": len(state.networks), "notes": notes}
    said = "changed" if changed else "unchanged"
    line = f"Cloudflare's networks are {said}{', now in force' if applied else ''}"
    return True, facts, [line, *(f"note: {note}" for note in notes)]


def _repair(host: Host, config: FirewallConfig, agent_port: int) -> VerbResult:
    from cc_sammy.firewall import metadata_table

    problems = metadata_table.repair(host)
    notes: list[str] = []
    if config.enabled and not boot_files.is_removed():
        differences, notes = _apply_where_different(host, config, agent_port)
        problems += differences
    wanted = policy.from_config(config, agent_port) if config.enabled else None
    note = rollback.active_rollback(wanted) if wanted else None
    until = rollback.lifted_until()
    nothing = f"lifted by hand {_until(until)}; `sammy firewall apply` ends it" if until else "nothing to repair"
    lines = [f"repaired: {problem}" for problem in problems] or [nothing]
    lines += [f"note: {one}" for one in notes]
    return True, {"repaired": problems, "rolled_back": note, "lifted_until": until, "notes": notes}, lines


def _apply_where_different(host: Host, config: FirewallConfig, agent_port: int) -> tuple[list[str], list[str]]:
    """Apply where the kernel differs, an operator's lift left alone; return the differences there were, and notes."""
    if rollback.lifted_until():
        return [], []
    wanted = rollback.effective_policy(policy.from_config(config, agent_port))
    problems = enforce.check(host, wanted)
    return problems, enforce.apply(host, wanted, config.input_policy) if problems else []


def _remove(host: Host, config: FirewallConfig, agent_port: int) -> VerbResult:
    enforce.remove(host)
    rollback.clear()
    line = f"removed: agent port {agent_port} is open to all until `sammy firewall apply`, also after a reboot"
    return True, {"removed": True}, [line]


def _lift(host: Host, config: FirewallConfig, agent_port: int, *, seconds: int, by_hand: bool) -> VerbResult:
    if not 0 < seconds <= MAX_LIFT_SECONDS:
        raise SammyError(f"a lift of {seconds} s is not possible", f"Choose 1 to {MAX_LIFT_SECONDS} seconds")
    _in_use(host, config)
    rollback.lift(host, rollback.effective_policy(policy.from_config(config, agent_port)), seconds, by_hand=by_hand)
    line = f"lifted: agent port {agent_port} is open to all for {seconds} s; `sammy firewall apply` ends it sooner"
    return True, {"seconds": seconds}, [line]


def _mark_known_good(host: Host, config: FirewallConfig, agent_port: int) -> VerbResult:
    _in_use(host, config)
    rollback.mark_known_good(host, rollback.effective_policy(policy.from_config(config, agent_port)))
    return True, {"vouched": True}, ["the rules in force are stored as known good"]


def _roll_back(host: Host, config: FirewallConfig, agent_port: int) -> VerbResult:
    _in_use(host, config)
    why = "the control plane no longer connected under the configured rules, and did as soon as they were lifted"
    wanted = policy.from_config(config, agent_port)
    good, notes = rollback.roll_back(host, wanted, config.input_policy, why)
    line = "back to the previous rules" if good else f"lifted: agent port {agent_port} is open to all"
    facts = {"rolled_back": rollback.active_rollback(wanted), "notes": notes}
    return True, facts, [f"{line}, because {why}", *(f"note: {note}" for note in notes)]


def _in_use(host: Host, config: FirewallConfig) -> None:
    if not config.enabled or boot_files.is_removed():
        raise SammyError(
            "the firewall is not in use here, so there is nothing to lift", "`sammy firewall status` says why"
        )


def _until(seconds: int) -> str:
    import time

    return time.strftime("until %Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def _removed() -> str:
    """Return who lifted the firewall."""
    return "lifted by the agent" if "the agent" in (files.read_text(boot_files.REMOVED) or "") else "removed by hand"


def _ssh(config: FirewallConfig, mode: str) -> str:
    if config.ssh == "drop" and mode == "open":
        return "open until the control plane acknowledges this node"
    return {"open": "open", "drop": "closed", "networks": "open to the listed networks"}[mode]
