# SPDX-License-Identifier: Apache-2.0
"""The HTTP routes of the control plane; no SQL."""
