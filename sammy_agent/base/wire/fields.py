# SPDX-License-Identifier: Apache-2.0
"""Names of fields that both ends must spell alike, and what their values may be.

SAM ignores fields it does not know, and answers 400 to the whole body for a known one of the wrong type or null.
"""

from __future__ import annotations

from collections.abc import Mapping

# `metrics` of a heartbeat: the raw load, and percent of 100. One that cannot be measured is left out.
METRICS = ("cpuLoadAvg1", "memoryPercent", "diskPercent")

# Ours, in a heartbeat: how provisioning is getting on. All texts; `durationMs` and `steps` come with them.
PROVISIONING = ("phase", "outcome", "reason", "runId", "bootId")

# Of a session's activity, next to `activity` and `nodeId`.
ACTIVITY: Mapping[str, type | tuple[type, ...]] = {
    "promptStartedAt": (int, float),
    "agentType": str,
    "restartCount": int,
    "statusError": str,
    "runtimeWorkState": str,
    "runtimeWorkCount": int,
    "runtimeWorkSource": str,
    "runtimeWorkProgressAt": (int, float, str),
}
