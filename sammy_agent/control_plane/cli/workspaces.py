# SPDX-License-Identifier: Apache-2.0
"""The operator's verbs for what nodes and workspaces tell: add-workspace, workspaces, messages, boot-log."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

from sammy_agent.base.errors import ControlPlaneError
from sammy_agent.base.wire.claims import WORKSPACE_SCOPE
from sammy_agent.base.wire.ids import ID_RULE, is_id
from sammy_agent.control_plane import node_schema, workspace_schema

MOST_AT_ONCE = 500


def add_parsers(inner: Any) -> list[argparse.ArgumentParser]:
    """Add the verbs below `control-plane`; return their parsers."""
    adding = inner.add_parser("add-workspace", help="make a workspace of a node known; prints its token")
    adding.add_argument("node")
    adding.add_argument("workspace")
    listing = inner.add_parser("workspaces", help="show the workspaces and how much they said")
    listing.add_argument("--json", action="store_true", help="print one JSON object")
    messages = inner.add_parser("messages", help="show what was said in a workspace's session, oldest first")
    messages.add_argument("workspace")
    messages.add_argument("--json", action="store_true", help="print one JSON object a message")
    log = inner.add_parser("boot-log", help="show a node's boot steps as it reported them")
    log.add_argument("node")
    log.add_argument("--json", action="store_true", help="print one JSON object an entry")
    return [adding, listing, messages, log]


def add_workspace(arguments: argparse.Namespace, store: Any) -> int:
    """Make it known and print its token, for `sammy-agent token set --workspace` on the node."""
    from sammy_agent.control_plane import token_signer
    from sammy_agent.control_plane.storage.workspaces import WorkspaceStore

    node, workspace = arguments.node, arguments.workspace
    if not is_id(workspace):
        raise ControlPlaneError(f"invalid workspace id {workspace!r}", ID_RULE)
    store.require_node(node)
    if not WorkspaceStore(store).add(workspace, node):
        raise ControlPlaneError(
            f"workspace {workspace} is another node's", "See `sammy-agent control-plane workspaces`"
        )
    print(
        token_signer.TokenSigner.open(arguments.state).callback_token(
            str(store.get_setting("url")), workspace, scope=WORKSPACE_SCOPE
        )
    )
    return 0


def workspaces(arguments: argparse.Namespace, store: Any) -> int:
    """Show all of them."""
    from sammy_agent.control_plane.storage.workspaces import WorkspaceStore

    found = [workspace_schema.to_json(row) for row in WorkspaceStore(store).workspaces()]
    if arguments.json:
        print(json.dumps({"workspaces": found}, indent=1))
    elif found:
        rows = [("WORKSPACE", "NODE", "SESSION", "MESSAGES", "SINCE")]
        rows += [
            (one["id"], one["nodeId"], one["sessionId"] or "-", str(one["messages"]), str(one["createdAt"]))
            for one in found
        ]
        print("\n".join(node_schema.format_table(rows, right=(3,))))
    else:
        print("no workspaces yet; `sammy-agent control-plane add-workspace NODE WORKSPACE` makes one known")
    return 0


def messages(arguments: argparse.Namespace, store: Any) -> int:
    """Show what was said."""
    from sammy_agent.control_plane.storage.workspaces import WorkspaceStore

    rows = WorkspaceStore(store)
    if rows.workspace(arguments.workspace) is None:
        raise ControlPlaneError(
            f"there is no workspace {arguments.workspace}", "See `sammy-agent control-plane workspaces`"
        )
    for message in _all(rows, arguments.workspace):
        if arguments.json:
            print(json.dumps(message, ensure_ascii=False))
        else:
            print(f"{message['timestamp']}  {message['role']:<9}  {_indented(message['content'])}")
    return 0


def boot_log(arguments: argparse.Namespace, store: Any) -> int:
    """Show the newest entries of a node's boot log, oldest first."""
    from sammy_agent.control_plane.storage.workspaces import WorkspaceStore

    store.require_node(arguments.node)
    entries = WorkspaceStore(store).log(arguments.node, None, MOST_AT_ONCE)
    if arguments.json:
        for entry in entries:
            print(json.dumps(entry, ensure_ascii=False))
    elif not entries:
        print("nothing yet; a node tells its boot steps as they happen")
    else:
        rows = [("TIME", "STEP", "STATUS", "DURATION_MS", "WHY")]
        rows += [
            (one["timestamp"], one["step"], one["status"], _duration(one["detail"]), one["message"]) for one in entries
        ]
        print("\n".join(node_schema.format_table(rows, right=(3,))))
    return 0


def _all(rows: Any, workspace: str) -> Iterator[dict[str, Any]]:
    after = 0
    while page := rows.messages(workspace, MOST_AT_ONCE, after):
        yield from page
        after = page[-1]["row"]


def _indented(text: str) -> str:
    """Return a text's lines without what a terminal would obey, below each other."""
    return ("\n" + " " * 37).join("".join(c if c.isprintable() else " " for c in line) for line in text.splitlines())


def _duration(detail: str | None) -> str:
    try:
        value = json.loads(detail or "null")["durationMs"]
        return "" if value is None else f"{value:.0f}"
    except (ValueError, KeyError, TypeError):
        return ""


VERBS = {"add-workspace": add_workspace, "workspaces": workspaces, "messages": messages, "boot-log": boot_log}
