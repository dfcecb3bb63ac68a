# SPDX-License-Identifier: Apache-2.0
"""What both commands and the boot steps share: files, text tables, terminal output, run records; no verb, no step."""
