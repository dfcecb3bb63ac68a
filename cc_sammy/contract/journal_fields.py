# SPDX-License-Identifier: Apache-2.0
"""Names of the journal's fields and ids of its messages.

Identity is run id and sequence, never a journal cursor: cursors change when journald flushes from /run to /var.
"""

from __future__ import annotations

from cc_sammy.contract.run_record import Status

IDENTIFIER = "sammy"
_FAMILY = "5b0e6f6c3b6b4b0f8f4d2c0a9d1e7a"

RUN_STARTED = _FAMILY + "05"
RUN_ENDED = _FAMILY + "06"
CONFIG_INVALID = _FAMILY + "07"


MESSAGE_ID = {
    Status.STARTED: _FAMILY + "01",
    Status.COMPLETED: _FAMILY + "02",
    Status.FAILED: _FAMILY + "03",
    Status.SKIPPED: _FAMILY + "04",
}

# Every field that one step event carries, SAMMY_DURATION_MS and SAMMY_REASON only where they apply.
STEP_FIELDS = (
    "MESSAGE_ID",
    "SAMMY_EVENT",
    "SAMMY_STEP",
    "SAMMY_STATUS",
    "SAMMY_ATTEMPT",
    "SAMMY_BOOTTIME_US",
    "SAMMY_RUN_ID",
    "SAMMY_SEQ",
)

# What the step's commands used, on an ended step's event: the field, and the record's name of it.
USAGE_FIELDS = {
    "SAMMY_CPU_MS": "cpu_ms",
    "SAMMY_PEAK_KB": "peak_kb",
    "SAMMY_READ_BYTES": "read_bytes",
    "SAMMY_WRITTEN_BYTES": "written_bytes",
}
