# SPDX-License-Identifier: Apache-2.0
"""The files that the firewall stores: what the next boot loads, and that an operator lifted it.

Rules go into the kernel first and into their file second. Killed between the two, the next boot loads the previous
rules, which are whole; the other way round it could load rules that no kernel had accepted yet.
"""

from __future__ import annotations

import os

from cc_sammy.common import files
from cc_sammy.contract import paths
from cc_sammy.errors import SammyError

FOLDER = paths.FIREWALL_FOLDER
REMOVED = FOLDER + "/removed"
FILES = {
    "nftables": ("applied.nft",),
    "iptables": tuple(f"{name}-{variant}.rules" for name in ("iptables", "ip6tables") for variant in ("nft", "legacy")),
}
HEADING = "# Written by sammy; `sammy firewall apply` writes it anew.\n"


def save(path: str, text: str) -> None:
    """Write what the next boot is to load, synced to the disk.

    :raises SammyError: it could not be written; the rules are in force all the same.
    """
    try:
        files.write_text(path, text, mode=0o600, sync=True)
    except OSError as error:
        raise SammyError(
            f"the rules are in force, but {path} could not be written ({error.strerror}): the next boot would load "
            "the previous rules",
            "Make room on the disk, then run sammy firewall apply",
        ) from error


def matches(path: str, text: str) -> bool:
    """Tell whether the next boot loads this."""
    return files.read_text(path) == text


def mark_removed(why: str) -> None:
    """Remember that the firewall was lifted."""
    files.write_text(REMOVED, f"{why} `sammy firewall apply` brings it back.\n")


def is_removed() -> bool:
    """Tell whether an operator lifted the firewall: the boot step then leaves it so."""
    return os.path.exists(REMOVED)
