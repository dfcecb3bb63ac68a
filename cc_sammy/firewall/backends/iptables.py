# SPDX-License-Identifier: Apache-2.0
"""The backend iptables: chain SAMMY and one jump to it, one restore a family.

iptables is two programs in one name: `nft` writes to nf_tables, `legacy` to tables of its own, and neither shows the
other's rules. Rules written to the one that nothing else uses look applied and are easily forgotten, so the variant
that the plain command means is asked for, written and read back by its own name, and what the other still holds of
ours is taken away.
"""

from __future__ import annotations

import os
import time
from typing import Any

from cc_sammy.common import files
from cc_sammy.errors import CommandFailed, SammyError
from cc_sammy.firewall import boot_files
from cc_sammy.firewall.backends import foreign_rules
from cc_sammy.firewall.model import iptables_chain
from cc_sammy.firewall.model.iptables_chain import program
from cc_sammy.firewall.model.policy import Policy
from cc_sammy.host.host import Host

HAS_IPV6 = "/proc/thread-self/net/if_inet6"
VARIANTS = ("nft", "legacy")
ATTEMPTS = 3  # another program may change INPUT between our look and our restore, which then fails as a whole


def variant(host: Host) -> str:
    """Return which iptables the plain command is: nft or legacy.

    :raises SammyError: it is not installed, or has no kernel to work with.
    """
    answer = host.run(["iptables", "-V"], check=False)
    if answer.returncode not in (0, 127):  # even its version it tells only with the kernel's module at hand
        said = (answer.stderr or answer.stdout).strip()
        raise SammyError(
            f"iptables does not work here ({said}): the firewall was not changed, what was in force before still is",
            "`modprobe nf_tables` (for iptables-legacy `modprobe ip_tables`) and `iptables -S` must succeed; then run "
            "sammy firewall apply",
        )
    if answer.returncode != 0:
        raise SammyError(
            "iptables is not there: the firewall was not changed, what was in force before still is",
            "apt install iptables, or set firewall.backend to nftables",
        )
    return "nft" if "nf_tables" in answer.stdout else "legacy"


def load(host: Host, policy: Policy) -> None:
    """Enforce the policy, one transaction a family, read it back, and keep it for the next boot.

    :raises SammyError: it is not in force, then what was in force before still is; or it could not be kept.
    """
    used = variant(host)
    problems = []
    for version in families():
        _restore_family(host, policy, used, version)
        found = iptables_chain.differences(policy, version, read(host, used, version))
        problems += found
    for version in families():
        boot_files.save(boot_path(used, version), boot_text(policy, version))
    _clear(host, other(used))
    if problems:
        raise SammyError(
            f"the firewall was loaded but the kernel holds something else: {'; '.join(problems)}",
            f"See `iptables-{used} -S`; another program may be changing it",
        )


def load_in(host: Host, policy: Policy) -> None:
    """Put the rules into the kernel and do nothing else: for the trial, in an empty network namespace."""
    used = variant(host)
    for version in families():
        _restore(host, used, version, iptables_chain.text(policy, version, (f"-I INPUT 1 -j {iptables_chain.CHAIN}",)))


def lift(host: Host, port: int, until: int) -> None:
    """Open a tcp port to all until a time (seconds since the epoch), when the rule ends to match by itself.

    :raises CommandFailed: the kernel refused, or has no `time` match.
    """
    used = variant(host)
    end = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(until))
    match = f"-p tcp --dport {port} -m time --datestop {end} -m comment --comment lifted-for-a-while"
    for version in families():
        host.run([program(used, version), "-w", "10", "-I", iptables_chain.CHAIN, "1", *match.split(), "-j", "RETURN"])


def drift(host: Host, policy: Policy) -> list[str]:
    """Return each difference between the policy and the kernel, or the files of the next boot."""
    used = variant(host)
    problems = []
    for version in families():
        problems += iptables_chain.differences(policy, version, read(host, used, version))
        path = boot_path(used, version)
        if not problems and not boot_files.matches(path, boot_text(policy, version)):
            problems.append(f"{path}, which the next boot loads, holds other rules than the kernel")
        if _holds(host, other(used), version):
            problems.append(
                f"iptables-{other(used)} holds a chain {iptables_chain.CHAIN} too, though iptables is {used}"
            )
    return problems


def unload(host: Host) -> None:
    """Take the rules out of the kernel and of the next boot, present or not, in both variants."""
    for name in VARIANTS:
        _clear(host, name)


def present(host: Host) -> bool:
    """Tell whether this backend holds anything of ours, in either variant."""
    return any(_holds(host, name, version) for name in VARIANTS for version in (4, 6))


def status(host: Host) -> dict[str, Any]:
    """Return what is loaded now: variant, rules, networks held, packets dropped.

    :raises SammyError: the kernel could not be read.
    """
    used = variant(host)
    listings = {version: read(host, used, version) for version in families()}
    found: dict[str, Any] = {
        "variant": used,
        "loaded": all(one.exists and one.jumps for one in listings.values()),
        "kept_for_boot": os.path.exists(boot_path(used, 4)),
        "rules": [f"IPv{version} {rule}" for version, one in listings.items() for rule in one.rules],
        "networks": {},
        "dropped": {},
    }
    for version, one in listings.items():
        found["networks"][f"allow{version}"] = sum(" -s " in rule and "--dport 22 " not in rule for rule in one.rules)
        for rule, packets, size in one.dropped:
            found["dropped"][f"IPv{version} {rule}"] = {"packets": packets, "bytes": size}
    return found


def families() -> tuple[int, ...]:
    """Return the families the kernel has: ip6tables fails where IPv6 was left out of it."""
    return (4, 6) if os.path.exists(HAS_IPV6) else (4,)


def read(host: Host, used: str, version: int) -> iptables_chain.ChainDump:
    """Return what the kernel holds of one family.

    :raises CommandFailed: it could not be read.
    """
    return iptables_chain.parse(host.run([program(used, version), "-w", "10", "-v", "-S"]).stdout)


def other(used: str) -> str:
    """Return the variant that is not in use."""
    return "legacy" if used == "nft" else "nft"


def boot_path(used: str, version: int) -> str:
    """Return the file the next boot restores; its name tells boot.sh the command."""
    return f"{boot_files.FOLDER}/{program(used, version)}.rules"


def boot_text(policy: Policy, version: int) -> str:
    """Return the file's text: no jump in it, because only who loads it knows whether there is one."""
    return boot_files.HEADING + iptables_chain.text(policy, version)


def _holds(host: Host, name: str, version: int) -> bool:
    if os.path.exists(boot_path(name, version)):
        return True
    if name == "legacy" and not foreign_rules.legacy_in_use(version):
        return False
    # one chain only: `-S` of everything stumbles over tables that other programs made in nft's own language
    answer = host.run([program(name, version), "-w", "10", "-S", iptables_chain.CHAIN], check=False)
    return answer.returncode == 0 and bool(answer.stdout)


def _clear(host: Host, name: str) -> None:
    for version in (4, 6):
        held = _holds(host, name, version)
        files.remove(boot_path(name, version))
        if not held:
            continue
        listing = read(host, name, version)
        if listing.exists:
            _restore(host, name, version, iptables_chain.removal(listing))


def _restore_family(host: Host, policy: Policy, used: str, version: int) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        listing = read(host, used, version)
        try:
            _restore(host, used, version, iptables_chain.text(policy, version, iptables_chain.jump_lines(listing)))
            return
        except CommandFailed as error:
            if attempt == ATTEMPTS:
                raise SammyError(
                    f"the IPv{version} rules were not loaded, what was in force before still is: {error}",
                    f"Check that the kernel has iptables ({program(used, version)} -S)",
                ) from error


def _restore(host: Host, used: str, version: int, text: str) -> None:
    host.run([program(used, version, "-restore"), "--noflush", "--wait", "10"], input=text)
