# SPDX-License-Identifier: Apache-2.0
"""The user-data that makes a machine a node of this control plane.

Built as data and printed by the YAML library: a template that pasted a PEM into text once bricked every new machine
of SAM's (its post-mortem of 2026-03-12). The result is read back before anyone sees it.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import yaml

from sammy_agent.base.errors import ControlPlaneError

TOKEN_FILE = "/etc/sammy/callback-token"
CA_FILE = "/etc/sammy/control-plane-ca.crt"
# A stock image's cloud-init checks user-data against its own schema before our package is there.
STOCK_CONFIG = "/etc/cloud/cloud.cfg.d/96-sammy-node.cfg"
STOCK_KEY, STOCK_SOURCE = "/etc/apt/keyrings/sammy.asc", "/etc/apt/sources.list.d/sammy.list"
MODULE_PACKAGE = "cloud-init-sammy"


@dataclass(frozen=True)
class AptSource:
    """Where a stock image gets our packages from: a one-line source without its options, and the signing key."""

    line: str
    key: str


@dataclass(frozen=True)
class NewNode:
    """What a node's user-data is made of."""

    node: str
    url: str
    token: str
    ca_pem: str
    allow: tuple[str, ...]
    more: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"<NewNode {self.node} of {self.url}>"


class _Block(str):
    """A text of several lines, to be printed as a block that a person can read."""


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(
    _Block, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style="|")
)


def addresses_of(url: str) -> tuple[str, ...]:
    """Return the networks that `firewall.allow` must hold for this control plane.

    :raises ControlPlaneError: its name does not resolve here.
    """
    host = urlsplit(url).hostname or ""
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError as error:
        raise ControlPlaneError(f"{host} has no address here: {error}", "Give the networks with --allow") from error
    return tuple(sorted(str(ipaddress.ip_network(str(address).partition("%")[0])) for address in found))


def merged(own: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Return `own` with `more` over it; mappings are merged, everything else is replaced."""
    result = dict(own)
    for key, value in more.items():
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result


def document(new: NewNode, stock: AptSource | None = None) -> dict[str, Any]:
    """Return the user-data's document."""
    sammy = merged(
        {
            "node_id": new.node,
            "control_plane": {"url": new.url, "token_file": TOKEN_FILE, "ca_file": CA_FILE},
            "firewall": {"allow": list(new.allow)},
        },
        new.more,
    )
    written: list[dict[str, Any]] = [
        {"path": TOKEN_FILE, "owner": "root:root", "permissions": "0600", "content": new.token},
        {"path": CA_FILE, "owner": "root:root", "permissions": "0644", "content": _Block(new.ca_pem)},
    ]
    if stock is None:
        return {"write_files": written, "sammy": sammy}
    inner = yaml.dump({"sammy": sammy}, Dumper=_Dumper, sort_keys=False)
    written.append({"path": STOCK_CONFIG, "permissions": "0600", "content": _Block(inner)})
    kind, rest = stock.line.split(None, 1)
    # Files rather than cloud-init's `apt: sources:`, which wants gpg on the image to take the key.
    written += [
        {"path": STOCK_KEY, "content": _Block(stock.key)},
        {"path": STOCK_SOURCE, "content": f"{kind} [signed-by={STOCK_KEY}] {rest}\n"},
    ]
    return {
        "package_update": True,
        "packages": [MODULE_PACKAGE],
        "write_files": written,
        # The module list was read before our package came: in this one boot the module is called by hand.
        "runcmd": [["cloud-init", "single", "--name", "sammy", "--frequency", "always"]],
    }


def render(content: Mapping[str, Any]) -> str:
    """Return the document as `#cloud-config` text that reads back as the same document."""
    text = "#cloud-config\n" + yaml.dump(dict(content), Dumper=_Dumper, sort_keys=False, width=1_000_000)
    if yaml.safe_load(text) != content:
        raise ControlPlaneError("the user-data does not read back as what was written", "This is a bug; please report")
    return text


def check_apt_source(line: str, key: str) -> AptSource:
    """Return a stock image's apt source. ControlPlaneError when the line or the key is none."""
    words = line.split()
    if len(words) < 3 or words[0] != "deb" or words[1].startswith("["):
        raise ControlPlaneError(
            f"--apt-source is {line!r}", 'Write "deb URI SUITE COMPONENT…" without options; the key comes by --apt-key'
        )
    if "BEGIN PGP PUBLIC KEY BLOCK" not in key:
        raise ControlPlaneError("--apt-key is not an ASCII-armoured public key", "Export it with gpg --armor --export")
    return AptSource(" ".join(words), key if key.endswith("\n") else key + "\n")


def check_networks(networks: Sequence[str]) -> tuple[str, ...]:
    """Return networks for `firewall.allow`. ControlPlaneError names the wrong one."""
    try:
        return tuple(str(ipaddress.ip_network(network)) for network in networks)
    except ValueError as error:
        raise ControlPlaneError(f"--allow: {error}", "Write a network such as 192.0.2.0/24") from error
