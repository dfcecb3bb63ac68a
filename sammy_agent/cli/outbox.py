# SPDX-License-Identifier: Apache-2.0
"""`sammy-agent outbox`: what waits for the control plane, the dead letters, and how to send those again.

The file is read next to a running agent or without one. To requeue, the agent is asked, else the file is opened.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
from typing import Any

from sammy_agent.base.errors import AgentError
from sammy_agent.base.runtime.clock import iso
from sammy_agent.base.runtime.control_client import ask
from sammy_agent.base.runtime.paths import Paths
from sammy_agent.base.storage.sqlite import Database
from sammy_agent.daemon.outbox.queue import MIGRATIONS, Outbox


def run(arguments: argparse.Namespace) -> int:
    """Show or requeue; return the exit status: 0, or 1 when there are dead letters."""
    paths = Paths(arguments.root)
    if arguments.action == "requeue":
        moved = _requeue(paths, arguments.id)
        print(json.dumps({"requeued": moved}) if arguments.json else f"{moved} rows are in the queue again")
        return 0
    found = look(paths.outbox)
    trouble = ((ask(paths.socket, "status") or {}).get("outbox") or {}).get("trouble") or {}
    if arguments.json:
        print(json.dumps({**found, "trouble": trouble}, indent=1))
    else:
        print("\n".join(_lines(found, trouble)))
    return 1 if found["set_aside"] else 0


def look(path: str) -> dict[str, Any]:
    """Return the lanes with their rows and bytes, the dead letters (`set_aside`), and the totals since the beginning.

    :raises AgentError: the file cannot be read.
    """
    try:
        with Database(path, MIGRATIONS, read_only=True, row_factory=sqlite3.Row).read() as db:
            lanes = db.execute(
                "SELECT channel, owner, COUNT(*) AS rows, SUM(size) AS bytes FROM rows JOIN lanes ON lanes.id=lane "
                "GROUP BY lane ORDER BY channel, owner"
            ).fetchall()
            aside = db.execute("SELECT channel, owner, id, reason, at FROM set_aside ORDER BY seq").fetchall()
            totals = db.execute("SELECT * FROM totals").fetchall()
    except sqlite3.Error as error:
        raise AgentError(f"{path}: {error}", "See journalctl -u sammy-agent") from error
    return {
        "lanes": [dict(row) for row in lanes],
        "set_aside": [{**dict(row), "at": iso(row["at"])} for row in aside],
        "totals": dict(map(tuple, totals)),
    }


def _lines(found: dict[str, Any], trouble: dict[str, str]) -> list[str]:
    lines = [] if found["lanes"] else ["nothing waits"]
    for lane in found["lanes"]:
        name = f"{lane['channel']} {lane['owner']}"
        why = f"  {trouble[name]}" if name in trouble else ""
        lines.append(f"{name}: {lane['rows']} rows, {lane['bytes'] / 1024:.0f} KiB{why}")
    dropped = found["totals"].get("dropped", 0)
    if dropped:
        lines.append(f"{dropped} rows were dropped because the outbox was full (oldest, lowest priority)")
    if found["set_aside"]:
        lines.append(f"set aside, because the control plane rejected them permanently ({len(found['set_aside'])}):")
        lines += [f"  {row['at']}  {row['channel']} {row['owner']}  {row['id']}  {row['reason']}"
                  for row in found["set_aside"]]  # fmt: skip
        lines.append("Fix the cause, then run: sammy-agent outbox requeue [ID …]")
    return lines


def _requeue(paths: Paths, ids: list[str]) -> int:
    answer = ask(paths.socket, f"outbox-requeue {json.dumps(ids)}")
    if answer is not None and not answer.get("ok"):
        raise AgentError(str(answer.get("error")))
    if answer is not None:
        return int(answer["requeued"])
    if not os.path.exists(paths.outbox):
        return 0
    outbox = Outbox(paths.outbox)
    try:
        return outbox.requeue(ids or None)
    finally:
        outbox.close()
