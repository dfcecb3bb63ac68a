# SPDX-License-Identifier: Apache-2.0
"""Networks: the bundled list of Cloudflare's ranges, and strict parsing of what people write.

Bundled, because a list fetched on the boot path that comes back empty or as an HTML page has locked whole fleets out.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import TypeVar

from cc_sammy.common import files
from cc_sammy.errors import SammyError
from cc_sammy.firewall import boot_files

Network4 = ipaddress.IPv4Network
Network6 = ipaddress.IPv6Network
N = TypeVar("N", Network4, Network6)

FETCHED = boot_files.FOLDER + "/ranges.json"

# As published in August 2026; the list changed last in April 2021.
CLOUDFLARE = (
    "173.245.48.0/20",
    "103.21.244.0/22",
    "103.22.200.0/22",
    "103.31.4.0/22",
    "141.101.64.0/18",
    "108.162.192.0/18",
    "190.93.240.0/20",
    "188.114.96.0/20",
    "197.234.240.0/22",
    "198.41.128.0/17",
    "162.158.0.0/15",
    "104.16.0.0/13",
    "104.24.0.0/14",
    "172.64.0.0/13",
    "131.0.72.0/22",
    "2400:cb00::/32",
    "2606:4700::/32",
    "2803:f800::/32",
    "2405:b500::/32",
    "2405:8100::/32",
    "2a06:98c0::/29",
    "2c0f:f248::/32",
)


def parse(
    texts: Iterable[str], key: str, cloudflare: Sequence[str] = CLOUDFLARE
) -> tuple[tuple[Network4, ...], tuple[Network6, ...]]:
    """Return the IPv4 and IPv6 networks in their order, those inside of others left out.

    :param cloudflare: what the word `cloudflare` stands for; by default the bundled list.
    :param key: the option the texts come from, for the error.
    :raises SammyError: naming every text that is not a network.
    """
    found4: list[Network4] = []
    found6: list[Network6] = []
    problems = []
    for text in texts:
        for word in cloudflare if text == "cloudflare" else (text,):
            try:
                network = ipaddress.ip_network(word)
            except ValueError:
                problems.append(_error(word))
                continue
            if isinstance(network, ipaddress.IPv4Network):
                found4.append(network)
            else:
                found6.append(network)
    if problems:
        raise SammyError(f"{key}: {'; '.join(problems)}", "Write networks as 192.0.2.0/24 or 2001:db8::/32")
    return remove_subnets(found4), remove_subnets(found6)


def remove_subnets(networks: Iterable[N]) -> tuple[N, ...]:
    """Return the networks in their order without those that lie in another: nft takes no overlapping elements.

    Neighbours are not merged, so that what is loaded reads as what was written.
    """
    given = list(networks)
    kept: set[N] = set()
    end = -1
    for network in sorted(given, key=lambda one: (int(one.network_address), one.prefixlen)):
        if int(network.broadcast_address) > end:
            kept.add(network)
            end = int(network.broadcast_address)
    return tuple(network for network in dict.fromkeys(given) if network in kept)


def current() -> tuple[str, ...]:
    """Return Cloudflare's networks: the last good list fetched, or the bundled one; never an error."""
    import json

    try:
        networks = tuple(json.loads(files.read_text(FETCHED) or "")["networks"])
        parse(networks, FETCHED)
    except (ValueError, KeyError, TypeError, SammyError):
        return CLOUDFLARE
    return networks or CLOUDFLARE


def _error(text: str) -> str:
    try:
        meant = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return f"{text!r} is not a network"
    # silently widening 10.1.2.3/8 to all of 10/8 would open more than its writer sees
    return f"{text!r} has host bits set ({meant} is the network around it)"
