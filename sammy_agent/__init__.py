# SPDX-License-Identifier: Apache-2.0
"""The VM agent and the embedded control plane; docs/architecture.md is the map of the wings."""

__version__ = "0.1.0"
