# SPDX-License-Identifier: Apache-2.0
"""Keeps agents away from the cloud's metadata address, where user-data and cloud credentials lie.

Only tcp 80 and 443 are closed: on some clouds the same address answers DNS or NTP. Forwarded packets are those of
bridged containers, whatever their bridge is called. Packets of the host's own processes are refused unless root's;
a root process in a host-network container passes here and is held by its systemd slice instead.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence

from cc_sammy.common import files
from cc_sammy.errors import SammyError
from cc_sammy.firewall import boot_files
from cc_sammy.firewall.backends import nftables
from cc_sammy.firewall.lock import exclusive
from cc_sammy.firewall.model import networks
from cc_sammy.firewall.model.nft_table import (
    DROP,
    RESET,
    AddressSet,
    Chain,
    NftRule,
    Table,
    address_in,
    not_from_root,
    render,
    to_web_ports,
)
from cc_sammy.host.host import Host

TABLE = "sammy_metadata"
BOOT_FILE = boot_files.FOLDER + "/metadata.nft"


def build(addresses: Sequence[str], host_processes: bool) -> Table:
    """Return the table that closes the addresses.

    :raises SammyError: naming each text that is not an address.
    """
    found4, found6 = networks.parse(addresses, "metadata_block.addresses")
    groups = (AddressSet("metadata4", 4, found4), AddressSet("metadata6", 6, found6))
    forward = tuple(
        NftRule(
            f"containers may not reach metadata by IPv{group.version}",
            (address_in(group, "daddr"), to_web_ports(), DROP),
        )
        for group in groups
    )
    output = tuple(
        NftRule(
            f"only root may reach metadata by IPv{group.version}",
            (not_from_root(), address_in(group, "daddr"), to_web_ports(), RESET),
        )
        for group in groups
    )
    chains = (Chain("forward", "forward", forward), Chain("output", "output", output if host_processes else ()))
    return Table(TABLE, groups, chains)


def apply(host: Host, addresses: Sequence[str], host_processes: bool) -> None:
    """Close the addresses in one transaction, keep the text for the next boot, and read it back.

    :raises SammyError: it is not in force.
    """
    with exclusive(host):
        nftables.load_table(host, build(addresses, host_processes), BOOT_FILE)


def is_in_force(host: Host, addresses: Sequence[str], host_processes: bool) -> bool:
    """Tell whether the kernel holds exactly these rules.

    :raises SammyError: the kernel could not be read.
    """
    with exclusive(host):
        return not nftables.table_drift(host, build(addresses, host_processes))


def stored_table() -> Table | None:
    """Return the table that the file stored for boot makes; None when there is no such file, or not one of ours."""
    text = files.read_text(BOOT_FILE)
    if text is None:
        return None
    found = [
        word for group in re.findall(r"^add element .*\{ (.*) \}$", text, re.MULTILINE) for word in group.split(", ")
    ]
    with contextlib.suppress(SammyError):
        for host_processes in (True, False):
            table = build(found, host_processes)
            if render(table) == text:
                return table
    return None


def drift(host: Host) -> list[str]:
    """Return each difference between the kernel and what is kept for boot; empty where no block is kept.

    :raises SammyError: the kernel could not be read.
    """
    table = stored_table()
    if table is None:
        return []
    with exclusive(host):
        return nftables.table_drift(host, table)


def repair(host: Host) -> list[str]:
    """Load what is stored for boot where the kernel differs from it; return the differences there were.

    :raises SammyError: it could not be loaded.
    """
    problems = drift(host)
    table = stored_table()
    if problems and table is not None:
        with exclusive(host):
            nftables.load_table(host, table, BOOT_FILE)
    return problems


def remove(host: Host) -> None:
    """Open the addresses again and forget the text kept for boot."""
    with exclusive(host):
        files.remove(BOOT_FILE)
        nftables.unload_table(host, TABLE)
