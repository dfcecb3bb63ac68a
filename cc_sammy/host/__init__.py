# SPDX-License-Identifier: Apache-2.0
"""The one door to the system, with its fake: files, commands, resource usage; no decision."""
