# SPDX-License-Identifier: Apache-2.0
"""SQLite files with migrations and repair, retention, time ranges; no table of anybody."""
