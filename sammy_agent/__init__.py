# SPDX-License-Identifier: Apache-2.0
"""The VM agent's package. In this version: the unit's process and its control socket; no control plane yet."""

__version__ = "0.1.0"
