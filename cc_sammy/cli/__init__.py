# SPDX-License-Identifier: Apache-2.0
"""The `sammy` command: one module per verb; no logic that another room could need."""
