# SPDX-License-Identifier: Apache-2.0
"""`sammy-agent control-plane …` and `sammy-agent add-node`: what the operator of a control plane types.

The verbs work on the state directory, so they need no running server and no token; who may read the directory is
the operator.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

from sammy_agent.base.errors import ControlPlaneError
from sammy_agent.base.runtime import files
from sammy_agent.base.runtime.paths import CONTROL_PLANE_STATE
from sammy_agent.base.wire.ids import ID_RULE, is_id
from sammy_agent.control_plane import node_schema
from sammy_agent.control_plane.cli import artifacts, debug_package, workspaces

LISTEN = "127.0.0.1:8787"


def add_parsers(verbs: Any) -> None:
    """Add `control-plane` and `add-node` to the command line."""
    control = verbs.add_parser("control-plane", help="serve the embedded control plane, or look into it")
    control.add_argument(
        "--state",
        default=CONTROL_PLANE_STATE,
        metavar="DIR",
        help=f"its state directory (default {CONTROL_PLANE_STATE})",
    )
    control.add_argument("--listen", default=LISTEN, metavar="HOST:PORT", help=f"default {LISTEN}")
    control.add_argument("--url", help="its address as the nodes reach it (default: the one listened on)")
    control.add_argument("--name", action="append", default=[], help="one more name or address for its certificate")
    control.add_argument(
        "--contact-every", type=float, default=60.0, metavar="SECONDS",
        help="how often to look whether each running node can be reached (default 60; 0: never)",
    )  # fmt: skip
    inner = control.add_subparsers(dest="control_verb", metavar="VERB")
    listing = inner.add_parser("nodes", help="show the nodes and how they fare")
    listing.add_argument("--json", action="store_true", help="print one JSON object")
    token = inner.add_parser("token", help="print a new first token for a node, for `sammy-agent token set`")
    token.add_argument("node")
    _add_token_life(token)
    removing = inner.add_parser("remove-node", help="forget a node; its tokens open nothing any more")
    removing.add_argument("node")
    others = [one for room in (workspaces, debug_package, artifacts) for one in room.add_parsers(inner)]
    for parser in (listing, token, removing, *others):
        _add_state(parser)

    adding = verbs.add_parser("add-node", help="print the #cloud-config that makes a machine a node")
    adding.add_argument("node", nargs="?", help="its id (default: a new one)")
    adding.add_argument(
        "--state",
        default=CONTROL_PLANE_STATE,
        metavar="DIR",
        help=f"the control plane's (default {CONTROL_PLANE_STATE})",
    )
    adding.add_argument("--url", help="the control plane's address as this node reaches it")
    adding.add_argument("--allow", action="append", default=[], metavar="NETWORK", help="for firewall.allow; default: "
                        "the control plane's address")  # fmt: skip
    adding.add_argument("--sammy", metavar="FILE", help="YAML: more options under sammy:, over ours")
    adding.add_argument("--replace", action="store_true", help="a known id becomes a new node")
    adding.add_argument("--stock", action="store_true", help="for an image without our packages")
    adding.add_argument("--apt-source", metavar="LINE", help='with --stock: "deb URI SUITE COMPONENT…"')
    adding.add_argument("--apt-key", metavar="FILE", help="with --stock: the source's public key, ASCII armoured")
    _add_token_life(adding)


def _add_state(parser: Any) -> None:
    # after the verb too; suppressed, so that it does not undo what stands before the verb
    parser.add_argument("--state", default=argparse.SUPPRESS, metavar="DIR", help="the control plane's state directory")


def _add_token_life(parser: Any) -> None:
    parser.add_argument("--token-life", type=float, metavar="HOURS", help="how long the token may lie unused (default: "
                        "ten years); from its first use it is good for 24 h")  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Run the verb; return the exit status."""
    if arguments.verb == "add-node":
        return _add_node(arguments)
    verb = {"nodes": _nodes, "token": _token, "remove-node": _remove}.get(arguments.control_verb)
    if verb is not None:
        return verb(arguments)
    inner = {**workspaces.VERBS, **debug_package.VERBS, **artifacts.VERBS}
    if arguments.control_verb in inner:
        return inner[arguments.control_verb](arguments, _open_store(arguments.state))
    import logging

    from sammy_agent.control_plane import server

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    if not 0 <= arguments.contact_every < float("inf"):
        raise ControlPlaneError(f"--contact-every is {arguments.contact_every}", "Write seconds, or 0 for never")
    return server.serve(arguments.listen, arguments.state, arguments.url, arguments.name, arguments.contact_every)


def _open_store(folder: str) -> Any:
    from sammy_agent.control_plane.storage.database import Store

    return Store(folder)


def _nodes(arguments: argparse.Namespace) -> int:
    from sammy_agent.control_plane.storage.artifacts import Artifacts

    store, now = _open_store(arguments.state), time.time()
    packages = Artifacts(store, arguments.state)
    views = [
        node_schema.to_json(row, now, store.incidents(row["id"], 10), packages.listed(row["id"]))
        for row in store.nodes()
    ]
    if arguments.json:
        print(json.dumps({"url": store.get_setting("url"), "nodes": views}, indent=1))
    elif views:
        print("\n".join(node_schema.format_table(node_schema.table_rows(views, now))))
    else:
        print("no nodes yet; `sammy-agent add-node` makes one's user-data")
    return 0


def _token(arguments: argparse.Namespace) -> int:
    store = _open_store(arguments.state)
    store.require_node(arguments.node)
    token_id, token = _new_token(arguments, arguments.node, _url(store, None))
    # the operator trusts the machine again: it may also present another key
    store.update_node(arguments.node, {"boot_token_id": token_id, "boot_token_used_at": None, "key_digest": None})
    print(token)
    return 0


def _remove(arguments: argparse.Namespace) -> int:
    store = _open_store(arguments.state)
    store.require_node(arguments.node)
    store.remove_node(arguments.node)
    return 0


def _url(store: Any, given: str | None) -> str:
    from sammy_agent.control_plane.server import check_url

    known = store.get_setting("url")
    if known is None:
        raise ControlPlaneError("this control plane never ran", "Start it once: it then knows its address")
    if given is None:
        return str(known)
    from urllib.parse import urlsplit

    url = check_url(given)
    names = (store.get_setting("names") or "").split()
    if urlsplit(url).hostname not in names:
        raise ControlPlaneError(
            f"the control plane's certificate does not hold {urlsplit(url).hostname} (it holds {', '.join(names)})",
            "Start the control plane with --name or --url for it",
        )
    return url


def _new_token(arguments: argparse.Namespace, node: str, url: str) -> tuple[str, str]:
    from sammy_agent.control_plane import token_signer

    life = token_signer.UNUSED_LIFE if arguments.token_life is None else arguments.token_life * 3600
    if life <= 0:
        raise ControlPlaneError(f"--token-life is {arguments.token_life}", "Write hours, more than 0")
    token_id = token_signer.new_token_id()
    return token_id, token_signer.TokenSigner.open(arguments.state).boot_token(url, node, token_id, life=life)


def _add_node(arguments: argparse.Namespace) -> int:
    from sammy_agent.control_plane import user_data
    from sammy_agent.control_plane.certificate_authority import CertificateAuthority

    node = arguments.node or node_schema.new_id()
    if not is_id(node):
        raise ControlPlaneError(f"invalid node id {node!r}", ID_RULE)
    store = _open_store(arguments.state)
    url = _url(store, arguments.url)
    if store.node(node) is not None and not arguments.replace:
        raise ControlPlaneError(
            f"there is a node {node} already",
            f"A new token for it: sammy-agent control-plane token {node}; to make it a new node: --replace",
        )
    stock = _apt_source(arguments) if arguments.stock else None
    token_id, token = _new_token(arguments, node, url)
    new = user_data.NewNode(
        node=node,
        url=url,
        token=token,
        ca_pem=CertificateAuthority(arguments.state).ca_pem,
        allow=user_data.check_networks(arguments.allow) or user_data.addresses_of(url),
        more=_more_options(arguments.sammy),
    )
    text = user_data.render(user_data.document(new, stock))
    store.add_node(node, token_id, url)
    sys.stdout.write(text)
    return 0


def _apt_source(arguments: argparse.Namespace) -> Any:
    from sammy_agent.control_plane import user_data

    if not arguments.apt_source or not arguments.apt_key:
        raise ControlPlaneError(
            "--stock needs --apt-source and --apt-key", "Give both: they say where the packages come from"
        )
    key = files.read(arguments.apt_key)
    if key is None:
        raise ControlPlaneError(f"--apt-key {arguments.apt_key}: no such file", "Export it with gpg --armor --export")
    return user_data.check_apt_source(arguments.apt_source, key)


def _more_options(path: str | None) -> dict[str, Any]:
    if path is None:
        return {}
    import yaml

    text = files.read(path)
    if text is None:
        raise ControlPlaneError(f"--sammy {path}: no such file", "Give the path of a YAML file")
    try:
        more = yaml.safe_load(text)
    except yaml.YAMLError as error:
        what = " ".join(str(error).split())
        raise ControlPlaneError(f"--sammy {path} is not YAML: {what}", "Correct it there and run this again") from error
    if not isinstance(more, dict):
        raise ControlPlaneError(
            f"--sammy {path} must hold a mapping of options", "Write them as under sammy: in the user-data"
        )
    return more.get("sammy", more) if set(more) == {"sammy"} else more
