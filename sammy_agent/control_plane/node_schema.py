# SPDX-License-Identifier: Apache-2.0
"""What a node is to the wire and to a person: bodies judged, health by age, tables. No I/O."""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from cc_sammy.common.text_table import table
from sammy_agent.base.errors import Code, ControlPlaneError
from sammy_agent.base.untrusted import InvalidJSON, read_object
from sammy_agent.base.wire import fields, limits
from sammy_agent.base.wire.ids import is_ulid
from sammy_agent.base.wire.statuses import ARTIFACT_READY, HEALTHY, NODE_RUNNING, STALE, UNHEALTHY
from sammy_agent.base.wire.timestamps import iso, seconds_of

ERROR_TEXTS = {"message": limits.MAX_ERROR_MESSAGE, "source": limits.MAX_ERROR_SOURCE, "stack": limits.MAX_ERROR_STACK}
MAX_PROVISIONING_TEXT, MAX_STEPS_BYTES = 2048, 65_536


class InvalidBody(ControlPlaneError):
    """A request's body breaks the wire's rules; answered 400."""

    code = Code.BODY_INVALID


def new_id() -> str:
    """Return an id for a node without a name."""
    return f"node-{secrets.token_hex(4)}"


def parse_json(raw: bytes) -> dict[str, Any]:
    """Return a body's JSON object. InvalidBody when it is something else."""
    try:
        return read_object(raw)
    except InvalidJSON as error:
        raise InvalidBody(f"Malformed JSON in request body: {error.problem.text}") from error


def parse_heartbeat(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns a heartbeat sets. InvalidBody names the first wrong field."""
    values: dict[str, Any] = {}
    for name, kind in (("activeWorkspaces", (int, float)), ("agentVersion", str), ("nodeId", str)):
        if name in document and not _is(document[name], kind):
            raise InvalidBody(f"{name}: wrong type")
    metrics = document.get("metrics", {})
    if not isinstance(metrics, dict):
        raise InvalidBody("metrics: wrong type")
    for name in fields.METRICS:
        if name in metrics and not (_is(metrics[name], (int, float)) and math.isfinite(metrics[name])):
            raise InvalidBody(f"metrics.{name}: wrong type")
    if metrics:
        values["metrics"] = {name: metrics[name] for name in fields.METRICS if name in metrics}
    if "agentVersion" in document:
        values["agent_version"] = document["agentVersion"][:128]
    port = document.get("agentPort")
    if isinstance(port, int) and 1 < port <= 65535:  # True is 1
        values["agent_port"] = port
    provisioning = _provisioning(document)
    if provisioning:
        values["provisioning"] = provisioning
    return values


def _provisioning(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return what our agent adds, where its shape is right; the wire knows none of it, so nothing is refused."""
    known: dict[str, Any] = {
        name: document[name][:MAX_PROVISIONING_TEXT]
        for name in fields.PROVISIONING
        if isinstance(document.get(name), str)
    }
    if _is(document.get("durationMs"), (int, float)) and math.isfinite(document["durationMs"]):
        known["durationMs"] = document["durationMs"]
    steps = document.get("steps")
    if isinstance(steps, list) and len(json.dumps(steps)) <= MAX_STEPS_BYTES:
        known["steps"] = [step for step in steps if isinstance(step, dict)]
    return known


def _is(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def parse_errors(raw: bytes) -> list[dict[str, Any]]:
    """Return the entries of a POST /errors that are to be kept, cut to size.

    :raises InvalidBody: too large, not an array, too many, or an incidentId that is not a ULID.
    """
    if len(raw) > limits.MAX_ERRORS_BYTES:
        raise InvalidBody(f"Request body exceeds {limits.MAX_ERRORS_BYTES} bytes")
    listed = parse_json(raw).get("errors")
    if not isinstance(listed, list):
        raise InvalidBody("errors must be an array")
    if len(listed) > limits.MAX_ERRORS:
        raise InvalidBody(f"Maximum {limits.MAX_ERRORS} errors per request")
    kept = []
    for entry in listed:
        if not isinstance(entry, dict) or not isinstance(entry.get("message"), str) or not entry["message"]:
            continue  # the wire skips them without a word
        incident = entry.get("incidentId")
        if incident is not None and not is_ulid(incident):
            raise InvalidBody("incidentId must be a ULID")
        cut = {name: str(entry[name])[:size] for name, size in ERROR_TEXTS.items() if name in entry}
        kept.append(
            {
                "source": "unknown",
                **entry,
                **cut,
                "level": str(entry.get("level", "error"))[:16],
                "incidentId": incident or f"none-{secrets.token_hex(8)}",
            }
        )
    return kept


def health(row: Mapping[str, Any], now: float) -> str:
    """Return healthy, stale or unhealthy: by the age of the last heartbeat, in steps of the node's threshold."""
    if row["last_heartbeat_at"] is None:
        return STALE if row["status"] == NODE_RUNNING else UNHEALTHY
    age = now - row["last_heartbeat_at"]
    return HEALTHY if age <= row["stale_after_s"] else STALE if age <= 2 * row["stale_after_s"] else UNHEALTHY


def to_json(
    row: Mapping[str, Any],
    now: float,
    incidents: Sequence[Mapping[str, Any]] = (),
    artifacts: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return a node as GET /api/nodes/{n} answers it: the wire's fields, then what our agent adds."""
    provisioning = json.loads(row["provisioning"]) if row["provisioning"] else None
    failed = provisioning is not None and provisioning.get("outcome") == "failed"
    message = provisioning.get("reason") if failed and provisioning else None
    if message is None and row["status"] != NODE_RUNNING:
        # cc_sammy also says, at level info, that a boot began
        message = next((incident["message"] for incident in incidents if incident["level"] == "error"), None)
    return {
        "id": row["id"],
        "name": row["id"],
        "status": row["status"],
        "healthStatus": health(row, now),
        "cloudProvider": None,
        "vmSize": None,
        "vmLocation": None,
        "nodeRole": "workspace",
        "ipAddress": row["ip_address"],
        "lastHeartbeatAt": iso(row["last_heartbeat_at"]),
        "heartbeatStaleAfterSeconds": row["stale_after_s"],
        "lastMetrics": json.loads(row["metrics"]) if row["metrics"] else None,
        "errorMessage": message,
        "createdAt": iso(row["created_at"]),
        "updatedAt": iso(row["updated_at"]),
        "readyAt": iso(row["ready_at"]),
        "agentPort": row["agent_port"],
        "reachable": None if row["reachable"] is None else bool(row["reachable"]),
        "reachableAt": iso(row["reachable_at"]),
        "unreachableWhy": row["unreachable_why"],
        "agentVersion": row["agent_version"],
        "provisioning": provisioning,
        "artifacts": list(artifacts),
        "incidents": [{**incident, "receivedAt": iso(incident["receivedAt"])} for incident in incidents],
    }


def table_rows(views: Sequence[Mapping[str, Any]], now: float) -> list[tuple[str, ...]]:
    """Return a heading and one row a node, for a person."""
    rows: list[tuple[str, ...]] = [("NODE", "STATUS", "HEALTH", "LAST BEAT", "OUTCOME", "PACKAGES", "WHY")]
    for node in views:
        beat = node["lastHeartbeatAt"]
        age = "never" if beat is None else f"{max(0.0, now - seconds_of(beat)):.0f} s ago"
        provisioning = node["provisioning"] or {}
        outcome = provisioning.get("outcome") or provisioning.get("phase") or "-"
        why = node["errorMessage"] or provisioning.get("reason") or node["unreachableWhy"] or ""
        packages = str(sum(one["status"] == ARTIFACT_READY for one in node["artifacts"]) or "-")
        rows.append((node["id"], node["status"], node["healthStatus"], age, str(outcome), packages, str(why)))
    return rows


def format_table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Return lines whose columns align, without what a terminal would obey; `right` numbers those flush right."""
    return table([tuple(map(_printable, row)) for row in rows], right)


def _printable(text: str) -> str:
    """Return a node's words without what a terminal would obey."""
    return "".join(character if character.isprintable() else " " for character in text)
