# SPDX-License-Identifier: Apache-2.0
"""What a running SAM control plane was asked and answered, as data: the facts that both our halves are held against.

Written down from observation (its real server code on loopback, August 2026): paths, fields, statuses, numbers; no text
or code of SAM's is in here. `source` names where a fact stands in our notes on SAM: "wire" is the list of 97 observed
exchanges, "protocol" and "sessions" with a section are what was read in its source or observed later, [n] is the number
of the exchange. An id is `n1`, `w1`, `p1`, `a1`, a session of messages `s1`; a time in an answer stands for any time.
"""

from __future__ import annotations

from typing import Any, NamedTuple

ULID = "01JDEFGHJKMNPQRSTVWXYZ0123"
NODE = {"sub": "n1", "workspace": "n1", "scope": "node"}
WORKSPACE = {"sub": "w1", "workspace": "w1", "scope": "workspace"}
Claims = dict[str, Any]


class Exchange(NamedTuple):
    """One request and its answer. `ours` says why the embedded control plane answers something else, and what."""

    source: str
    what: str
    path: str
    body: Any
    token: Claims | str | None  # claims that are signed well, or the whole Authorization header
    status: int
    answer: dict[str, Any] | None = None  # None: empty, or not recorded
    method: str = "POST"
    ours: tuple[int, str] | None = None
    headers: dict[str, str] = {}  # noqa: RUF012  (nobody changes it)


HEARTBEAT_METRICS = {"cpuLoadAvg1": 0.42, "diskPercent": 31.5, "memoryPercent": 12.25}
HEARTBEAT_BODY = {
    "activeWorkspaces": 0,
    "agentVersion": "dev",
    "metrics": HEARTBEAT_METRICS,
    "nodeId": "n1",
}
HEARTBEAT_ANSWER = {"status": "creating", "lastHeartbeatAt": "2026-11-23T14:44:37.005Z", "healthStatus": "healthy"}
READY_ANSWER = {"status": "running", "readyAt": "2026-11-23T14:44:37.093Z"}
ERROR_ENTRY = {
    "incidentId": ULID,
    "level": "error",
    "message": "docker did not start",
    "source": "provisioning",
    "stack": "",
    "workspaceId": "",
    "timestamp": "2026-11-23T14:44:37Z",
    "context": {"step": "docker"},
}
BOOT_LOG_ENTRY = {
    "step": "git_clone",
    "status": "started",
    "message": "cloning",
    "detail": "main",
    "timestamp": "2026-11-23T14:44:37Z",
}
MESSAGE = {
    "messageId": "m1",
    "sessionId": "s1",
    "role": "assistant",
    "content": "done",
    "timestamp": "2026-11-23T14:44:37.000Z",
    "sequence": 1,
}
TOOL_MESSAGE = {**MESSAGE, "messageId": "m2", "role": "tool", "sequence": 2, "toolMetadata": '{"toolCallId":"t1"}'}
PROMPT_MESSAGE = {**MESSAGE, "messageId": "m3", "role": "user", "sequence": 3, "origin": "system"}
PERSISTED, DUPLICATES = {"persisted": 3, "duplicates": 0}, {"persisted": 0, "duplicates": 3}
SESSION_FULL_ANSWER = {
    "error": "SESSION_MESSAGE_LIMIT_EXCEEDED",
    "persisted": 0,
    "duplicates": 0,
    "maxMessages": 100_000,
    "remainingCapacity": 0,
}
ACTIVITY_BODY = {
    "activity": "prompting",
    "nodeId": "n1",
    "promptStartedAt": 1_795_445_077_000,
    "agentType": "claude-code",
    "restartCount": 0,
    "statusError": "",
    "runtimeWorkState": "active",
    "runtimeWorkCount": 1,
    "runtimeWorkSource": "background-shell",
    "runtimeWorkProgressAt": 1_795_445_077_000,
}
CONTENT = b"evidence of an incident"
CONTENT_SHA256 = "60f70931f1d7c4044f015006aeafc4577c6d3c44087cb4a5b2d7fb2f3b08de64"
ARTIFACT_BODY = {
    "artifactId": f"{ULID}-safe",
    "kind": "safe-vm-incident-v1",
    "contentType": "application/gzip",
    "sizeBytes": len(CONTENT),
    "checksumSha256": CONTENT_SHA256,
    "manifest": {},
    "preview": {},
    "status": "ready",
}
NODE_FIELDS = (
    "id", "name", "status", "healthStatus", "cloudProvider", "vmSize", "vmLocation", "nodeRole", "ipAddress",
    "lastHeartbeatAt", "heartbeatStaleAfterSeconds", "lastMetrics", "errorMessage", "createdAt", "updatedAt",
)  # fmt: skip
JWKS_KEY = {"kty": "RSA", "n": "…", "e": "AQAB", "kid": "key-2026-11", "use": "sig", "alg": "RS256"}
# protocol 1.1 and 2.1
CALLBACK_CLAIMS = {"iss", "aud", "sub", "workspace", "type", "scope", "iat", "exp"}
MANAGEMENT_CLAIMS = {"iss", "aud", "sub", "type", "node", "iat", "exp"}

ROLES = {"user", "assistant", "system", "tool", "thinking", "plan"}  # protocol 1.5
ACTIVITIES = {"prompting", "idle", "recovering", "error"}  # protocol 1.8
BOOT_LOG_STATUSES = {"started", "completed", "failed"}  # protocol 1.4
ERROR_CODES = {400: "BAD_REQUEST", 401: "UNAUTHORIZED", 403: "FORBIDDEN", 404: "NOT_FOUND", 409: "CONFLICT",
               500: "INTERNAL_ERROR"}  # fmt: skip  # protocol 1.1
# path and the ids that stand in it (wire; protocol 1.2 to 1.9, 1.11)
PATHS = {
    "/.well-known/jwks.json",
    "/api/nodes/n1",
    "/api/nodes/n1/heartbeat",
    "/api/nodes/n1/ready",
    "/api/nodes/n1/errors",
    "/api/nodes/n1/origin-ca-certificate",
    f"/api/nodes/n1/diagnostic-incidents/{ULID}/artifacts",
    f"/api/nodes/n1/diagnostic-incidents/{ULID}/artifacts/{ULID}-safe/content",
    "/api/workspaces/w1/messages",
    "/api/workspaces/w1/boot-log",
    "/api/projects/p1/node-acp-heartbeat",
    "/api/projects/p1/acp-sessions/a1/activity",
}

N, W, P = "/api/nodes/n1", "/api/workspaces/w1", "/api/projects/p1"
ARTIFACTS = f"{N}/diagnostic-incidents/{ULID}/artifacts"
ARTIFACT_CONTENT = f"{ARTIFACTS}/{ULID}-safe/content"
BAD_TOKEN = (401, "a node that is not let in is told so; SAM's 500 looks like trouble that passes")


def messages(*changes: dict[str, Any]) -> dict[str, Any]:
    """Return a body of messages that differ from the recorded one by so much."""
    return {"messages": [{**MESSAGE, "messageId": f"m-{number}", **change} for number, change in enumerate(changes)]}


def errors(*changes: dict[str, Any]) -> dict[str, Any]:
    """Return a body of error entries that differ from the recorded one by so much."""
    return {"errors": [{**ERROR_ENTRY, **change} for change in changes]}


def sized(limit: int, body: dict[str, Any], text: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the body, whose last entry's `content` or `message` is made as long as lets it take `limit` bytes."""
    import json

    name = "content" if "content" in text[-1] else "message"
    text[-1][name] = ""
    text[-1][name] = "x" * (limit - len(json.dumps(body).encode()))
    return body


def _sized_messages(limit: int) -> dict[str, Any]:
    body = messages(*({"content": "x" * 87_000} for _ in range(3)))
    return sized(limit, body, body["messages"])


def _sized_errors(limit: int) -> dict[str, Any]:
    body = errors({})
    return sized(limit, body, body["errors"])


# What goes together and in this order, each conversation against a node and a workspace that nothing is known of.
CONVERSATIONS: dict[str, list[Exchange]] = {
    "a node that boots": [
        Exchange("wire", "the first heartbeat", f"{N}/heartbeat", HEARTBEAT_BODY, NODE, 200, HEARTBEAT_ANSWER),
        Exchange("wire", "a heartbeat makes no node running", f"{N}/heartbeat", {}, NODE, 200, HEARTBEAT_ANSWER),
        Exchange("wire", "ready", f"{N}/ready", {"agentVersion": "dev"}, NODE, 200, READY_ANSWER),
        Exchange("wire", "and running from then on", f"{N}/heartbeat", {}, NODE, 200,
                 {**HEARTBEAT_ANSWER, "status": "running"}),
        Exchange("protocol 1.2 [7]", "ready without a body", f"{N}/ready", None, NODE, 200, READY_ANSWER),
        Exchange("protocol 1.2 [28]", "ready of an unknown node", "/api/nodes/n9/ready", None,
                 {**NODE, "sub": "n9", "workspace": "n9"}, 200, READY_ANSWER),
        Exchange("protocol 1.3 [27]", "a heartbeat of an unknown node", "/api/nodes/n9/heartbeat", {},
                 {**NODE, "sub": "n9", "workspace": "n9"}, 404),
    ],
    "heartbeat bodies": [
        Exchange("protocol 1.3", "nothing", f"{N}/heartbeat", {}, NODE, 200),
        Exchange("wire", "an unknown field", f"{N}/heartbeat", {"unknown": [1]}, NODE, 200),
        Exchange("protocol 1.3 [11]", "a null metric", f"{N}/heartbeat", {"metrics": {"cpuLoadAvg1": None}}, NODE, 400),
        Exchange("protocol 1.3 [12]", "a metric that is text", f"{N}/heartbeat",
                 {"metrics": {"diskPercent": "31"}}, NODE, 400),
        Exchange("protocol 1.3 [33]", "no content type", f"{N}/heartbeat", HEARTBEAT_BODY, NODE, 200,
                 headers={"Content-Type": ""}),
        Exchange("protocol 1.1 [34]", "bad JSON without a token", f"{N}/heartbeat", b"{", None, 400),
    ],
    "tokens": [
        Exchange("wire", "no header", f"{N}/heartbeat", {}, None, 401),
        Exchange("wire", "an empty token", f"{N}/heartbeat", {}, "Bearer ", 401),
        Exchange("wire", "another scheme", f"{N}/heartbeat", {}, "Basic eDp5", 401),
        Exchange("protocol 1.1 [21]", "garbage", f"{N}/heartbeat", {}, "Bearer nonsense", 500, ours=BAD_TOKEN),
        Exchange("protocol 1.1 [22]", "expired", f"{N}/heartbeat", {}, {**NODE, "exp": 1_700_000_000}, 500,
                 ours=BAD_TOKEN),
        Exchange("protocol 1.1 [23]", "for another audience", f"{N}/heartbeat", {},
                 {**NODE, "aud": "node-management"}, 500, ours=BAD_TOKEN),
        Exchange("protocol 1.1 [70]", "garbage to /errors", f"{N}/errors", errors({}), "Bearer nonsense", 401),
        Exchange("wire", "of another node", f"{N}/heartbeat", {}, {**NODE, "sub": "n2", "workspace": "n2"}, 401),
        Exchange("wire", "of a workspace", f"{N}/heartbeat", {}, WORKSPACE, 403),
        Exchange("protocol 1.1 [29]", "without a scope", f"{N}/heartbeat", {}, {**NODE, "scope": None}, 200),
        Exchange("protocol 1.1 [71]", "without a scope to /errors", f"{N}/errors", errors({}),
                 {**NODE, "scope": None}, 403),
        Exchange("protocol 1.1 [42]", "a node's at a workspace", f"{W}/messages", messages({}), NODE, 403),
        Exchange("protocol 1.1 [43]", "another workspace's", f"{W}/messages", messages({}),
                 {**WORKSPACE, "sub": "w2", "workspace": "w2"}, 403),
        Exchange("protocol 1.1 [79]", "another node's at a project", f"{P}/node-acp-heartbeat", {"nodeId": "n1"},
                 {**NODE, "sub": "n2", "workspace": "n2"}, 403),
        Exchange("protocol 1.1 [81]", "without a scope at a project", f"{P}/node-acp-heartbeat", {"nodeId": "n1"},
                 {**NODE, "scope": None}, 403),
        Exchange("protocol 1.1 [95]", "a path that is none", "/api/nothing", {}, NODE, 401),
    ],
    "messages": [
        Exchange("wire", "three", f"{W}/messages", {"messages": [MESSAGE, TOOL_MESSAGE, PROMPT_MESSAGE]}, WORKSPACE,
                 200, PERSISTED),
        Exchange("wire", "the same again", f"{W}/messages", {"messages": [MESSAGE, TOOL_MESSAGE, PROMPT_MESSAGE]},
                 WORKSPACE, 200, DUPLICATES),
        Exchange("wire", "another session", f"{W}/messages", messages({"sessionId": "s2"}), WORKSPACE, 400),
        Exchange("wire", "two sessions", f"{W}/messages", messages({}, {"sessionId": "s2"}), WORKSPACE, 400),
        Exchange("wire", "none", f"{W}/messages", {"messages": []}, WORKSPACE, 400),
        Exchange("wire", "a role that is none", f"{W}/messages", messages({"role": "narrator"}), WORKSPACE, 400),
        Exchange("wire", "no content", f"{W}/messages", messages({"content": ""}), WORKSPACE, 400),
        Exchange("protocol 1.5", "as many as are taken", f"{W}/messages", messages(*[{}] * 100), WORKSPACE, 200),
        Exchange("protocol 1.5", "one more", f"{W}/messages", messages(*[{}] * 101), WORKSPACE, 400),
        Exchange("protocol 1.5", "the longest content", f"{W}/messages",
                 messages({"messageId": "l1", "content": "x" * 102_400}), WORKSPACE, 200),
        Exchange("protocol 1.5", "in UTF-16 units", f"{W}/messages",
                 messages({"messageId": "l2", "content": "\U0001d11e" * 51_200}), WORKSPACE, 200),
        Exchange("protocol 1.5", "one unit more", f"{W}/messages", messages({"content": "x" * 102_401}), WORKSPACE,
                 400),
        Exchange("protocol 1.5", "a pair more", f"{W}/messages", messages({"content": "\U0001d11e" * 51_201}),
                 WORKSPACE, 400),
        Exchange("protocol 1.5", "the largest body", f"{W}/messages", _sized_messages(262_144), WORKSPACE, 200),
        Exchange("protocol 1.5", "one byte more", f"{W}/messages", _sized_messages(262_145), WORKSPACE, 400),
        Exchange("protocol 1.5 [59]", "an unknown workspace", "/api/workspaces/w9/messages", messages({}),
                 {**WORKSPACE, "sub": "w9", "workspace": "w9"}, 404),
    ],
    "errors": [
        Exchange("wire", "one", f"{N}/errors", errors({}), NODE, 204),
        Exchange("wire", "the same again", f"{N}/errors", errors({}), NODE, 204),
        Exchange("wire", "one without a message is skipped", f"{N}/errors", errors({"message": None}), NODE, 204),
        Exchange("wire", "no array", f"{N}/errors", {"errors": {}}, NODE, 400),
        Exchange("wire", "an id that is no ULID", f"{N}/errors", errors({"incidentId": "x"}), NODE, 400),
        Exchange("protocol 1.6", "as many as are taken", f"{N}/errors", errors(*[{}] * 10), NODE, 204),
        Exchange("protocol 1.6", "one more", f"{N}/errors", errors(*[{}] * 11), NODE, 400),
        Exchange("protocol 1.6", "the largest body", f"{N}/errors", _sized_errors(32_768), NODE, 204),
        Exchange("protocol 1.6", "one byte more", f"{N}/errors", _sized_errors(32_769), NODE, 400),
    ],
    "a workspace's boot log": [
        Exchange("wire", "an entry", f"{W}/boot-log", BOOT_LOG_ENTRY, WORKSPACE, 200, {"success": True}),
        Exchange("protocol 1.4 [40]", "a status that is none", f"{W}/boot-log",
                 {**BOOT_LOG_ENTRY, "status": "skipped"}, WORKSPACE, 400),
        Exchange("protocol 1.4 [41]", "no time", f"{W}/boot-log", {**BOOT_LOG_ENTRY, "timestamp": ""}, WORKSPACE, 400),
    ],
    "an incident's artifact": [
        Exchange("protocol 1.6 [75]", "declared", ARTIFACTS, ARTIFACT_BODY, NODE, 201,
                 {"artifactId": f"{ULID}-safe", "status": "pending"}),
        Exchange("protocol 1.6 [76]", "sent", ARTIFACT_CONTENT, CONTENT, NODE, 204, method="PUT",
                 headers={"X-Content-SHA256": CONTENT_SHA256}),
        Exchange("protocol 1.6 [77]", "sent again", ARTIFACT_CONTENT, CONTENT, NODE, 204, method="PUT",
                 headers={"X-Content-SHA256": CONTENT_SHA256}),
    ],
    "sessions": [
        Exchange("wire", "a sign of life", f"{P}/node-acp-heartbeat", {"nodeId": "n1"}, NODE, 204),
        Exchange("sessions 3.3", "activity", f"{P}/acp-sessions/a1/activity", ACTIVITY_BODY, NODE, 204),
        Exchange("sessions 3.3", "a word that is none", f"{P}/acp-sessions/a1/activity",
                 {**ACTIVITY_BODY, "activity": "asleep"}, NODE, 400),
        Exchange("sessions 1.3", "of another node", f"{P}/acp-sessions/a1/activity",
                 {**ACTIVITY_BODY, "nodeId": "n2"}, NODE, 403),
    ],
}  # fmt: skip
