# SPDX-License-Identifier: Apache-2.0
"""The operator's verb for what nodes left of their incidents: artifacts."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from sammy_agent.base.errors import ControlPlaneError
from sammy_agent.base.runtime import files
from sammy_agent.base.wire.statuses import ARTIFACT_READY
from sammy_agent.control_plane import node_schema


def add_parsers(inner: Any) -> list[argparse.ArgumentParser]:
    """Add the verb below `control-plane`; return its parser."""
    parser: argparse.ArgumentParser = inner.add_parser(
        "artifacts", help="show the debug packages that a node pushed, or write them to files"
    )
    parser.add_argument("node")
    parser.add_argument("--output", metavar="DIR", help="write each that is there to this folder")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return [parser]


def artifacts(arguments: argparse.Namespace, store: Any) -> int:
    """Show them, newest first; with --output write them too."""
    from sammy_agent.control_plane.storage.artifacts import Artifacts

    store.require_node(arguments.node)
    kept = Artifacts(store, arguments.state)
    found = kept.listed(arguments.node)
    for one in found:
        one["path"] = _written(kept, arguments, one) if arguments.output and one["status"] == ARTIFACT_READY else None
    if arguments.json:
        print(json.dumps({"artifacts": found}, indent=1))
    elif not found:
        print(
            f"{arguments.node} pushed no debug package; it does when provisioning failed or contact was lost for long"
        )
    else:
        rows = [("RECEIVED", "STATUS", "KIB", "INCIDENT", "WHY", "FILE")]
        for one in found:
            why = one["preview"].get("message", "") if isinstance(one["preview"], dict) else ""
            kib = f"{one['sizeBytes'] / 1024:.0f}"
            rows.append((one["receivedAt"], one["status"], kib, one["incidentId"], _short(why), one["path"] or "-"))
        print("\n".join(node_schema.format_table(rows, right=(2,))))
        if not arguments.output:
            print(f"\nTo have them: sammy-agent control-plane artifacts {arguments.node} --output DIR")
    return 0


def _short(why: object) -> str:
    text = " ".join(str(why).split())
    return "".join(sign if sign.isprintable() else " " for sign in text)[:80]


def _written(kept: Any, arguments: argparse.Namespace, one: dict[str, Any]) -> str:
    ending = "tar.gz" if "gzip" in one["contentType"] else "bin"
    path = os.path.join(arguments.output, f"{arguments.node}-{one['incidentId']}.{ending}")
    try:
        files.write(path, kept.read(arguments.node, one["incidentId"], one["artifactId"]), mode=files.PRIVATE)
    except OSError as error:
        raise ControlPlaneError(f"{error.filename}: {error.strerror}", "Name another folder with --output") from error
    return path


VERBS = {"artifacts": artifacts}
