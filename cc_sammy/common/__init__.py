# SPDX-License-Identifier: Apache-2.0
"""What both commands print and read with: text tables, terminal output, stored run records; no verb, no step."""
