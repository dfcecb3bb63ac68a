# SPDX-License-Identifier: Apache-2.0
"""One run of the boot steps: schedule, runner, journal, records; no step and no system call of its own."""
