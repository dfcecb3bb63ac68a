# SPDX-License-Identifier: Apache-2.0
"""Paths, files, clock, workers, sd_notify; no SQLite, no HTTP."""
