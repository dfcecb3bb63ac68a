# SPDX-License-Identifier: Apache-2.0
"""The backend nftables: puts tables into the kernel, reads them back, takes them away."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from cc_sammy.common import files
from cc_sammy.errors import CommandFailed, SammyError
from cc_sammy.firewall import boot_files
from cc_sammy.firewall.model import policy as policy_module
from cc_sammy.firewall.model import port_rules
from cc_sammy.firewall.model.nft_table import Table, render
from cc_sammy.host.host import Host

APPLIED = boot_files.FOLDER + "/applied.nft"
NFT = "nft"


def load(host: Host, policy: policy_module.Policy) -> None:
    """Enforce the policy in one transaction, read it back, and keep it for the next boot.

    :raises SammyError: it is not in force, then what was in force before still is; or it could not be kept.
    """
    load_table(host, port_rules.build(policy), APPLIED)


def load_in(host: Host, policy: policy_module.Policy) -> None:
    """Put the rules into the kernel and do nothing else: for the trial."""
    host.run([NFT, "-f", "-"], input=port_rules.text(policy))


def lift(host: Host, port: int, until: int) -> None:
    """Open a tcp port to all until a time (seconds since the epoch), when the rule ends to match by itself.

    :raises CommandFailed: the kernel refused.
    """
    end = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(until))
    rule = f'tcp dport {port} meta time < {until} accept comment "lifted: anyone may reach it until {end} UTC"'
    host.run([NFT, "-f", "-"], input=f"insert rule inet {port_rules.TABLE} input {rule}\n")


def drift(host: Host, policy: policy_module.Policy) -> list[str]:
    """Return each difference between the policy and the kernel, or the file of the next boot."""
    problems = table_drift(host, port_rules.build(policy))
    if not problems and not boot_files.matches(APPLIED, port_rules.text(policy)):
        problems.append(f"{APPLIED}, which the next boot loads, holds other rules than the kernel")
    return problems


def unload(host: Host) -> None:
    """Take the rules out of the kernel and of the next boot, present or not."""
    files.remove(APPLIED)
    unload_table(host, port_rules.TABLE)


def present(host: Host) -> bool:
    """Tell whether this backend holds anything of ours; False also where there is no nft at all."""
    if os.path.exists(APPLIED):
        return True
    try:
        return read_table(host, port_rules.TABLE) is not None
    except CommandFailed:
        return False


def status(host: Host) -> dict[str, Any]:
    """Return what is loaded now: rules, networks held, packets dropped.

    :raises CommandFailed: the kernel could not be read.
    """
    from cc_sammy.firewall.backends import drift as readback

    listing = read_table(host, port_rules.TABLE)
    found: dict[str, Any] = {"loaded": listing is not None, "kept_for_boot": os.path.exists(APPLIED)}
    found |= {"rules": [], "networks": {}, "dropped": {}}
    if listing is not None:
        objects = json.loads(listing)["nftables"]
        rules = [entry["rule"] for entry in objects if "rule" in entry]
        found["rules"] = [rule.get("comment") or readback.in_words(rule["expr"]) for rule in rules]
        sets = [entry["set"] for entry in objects if "set" in entry]
        found["networks"] = {group["name"]: len(group.get("elem", [])) for group in sets}
        found["dropped"] = readback.counters(listing)
    return found


def load_table(host: Host, table: Table, path: str) -> None:
    """Load a table, read it back, keep its text at `path`; rebuild it when its shape in the kernel is foreign.

    :raises SammyError: it is not in force, or not kept.
    """
    text = render(table)
    try:
        host.run([NFT, "-f", "-"], input=text)
        problems = table_drift(host, table)
    except CommandFailed as error:
        _raise_if_missing(error)
        problems = ["nft refused to refill the table"]
    if problems:
        # someone made a chain or set of ours with another type, hook or priority: only a new table helps
        problems = _rebuild(host, table)
    boot_files.save(path, text)  # the gentle form: the one that every later boot loads
    if problems:
        raise SammyError(
            f"the firewall was loaded but the kernel holds something else: {'; '.join(problems)}",
            f"See `nft list table inet {table.name}`; another program may be changing it",
        )


def unload_table(host: Host, name: str) -> None:
    """Delete one of our tables, present or not."""
    host.run([NFT, "-f", "-"], input=f"add table inet {name}\ndelete table inet {name}\n")


def table_drift(host: Host, table: Table) -> list[str]:
    """Return each difference between the table and the kernel."""
    listing = read_table(host, table.name)
    from cc_sammy.firewall.backends import drift as readback  # late: the look beside the loading has imported it by now

    if listing is None:
        return [f"table inet {table.name} is not loaded: nothing it should guard is guarded"]
    return readback.differences(table, listing)


def read_table(host: Host, name: str) -> str | None:
    """Return the kernel's table as nft's JSON, None when there is none.

    :raises CommandFailed: nft is missing or may not read; that is not the same as no table.
    """
    argv = [NFT, "--json", "--numeric", "list", "table", "inet", name]
    result = host.run(argv, check=False)
    if result.returncode == 0:
        return result.stdout
    if "No such file or directory" in result.stderr and result.returncode != 127:
        return None
    raise CommandFailed(argv, result.returncode, result.stdout + result.stderr)


def _rebuild(host: Host, table: Table) -> list[str]:
    try:
        host.run([NFT, "-f", "-"], input=render(table, rebuild=True))
    except CommandFailed as error:
        raise SammyError(
            f"the firewall table inet {table.name} was not loaded, what was in force before still is: {error}",
            "`modprobe nf_tables` and `nft list ruleset` must succeed; then run sammy firewall apply",
        ) from error
    return table_drift(host, table)


def _raise_if_missing(error: CommandFailed) -> None:
    if error.returncode == 127:
        raise SammyError(
            "nft is not there: the firewall was not changed, what was in force before still is",
            "apt install nftables, or set firewall.backend to iptables",
        ) from error
