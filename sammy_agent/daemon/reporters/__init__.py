# SPDX-License-Identifier: Apache-2.0
"""What the node tells its control plane: that it lives, that it is ready, what failed. One thread and one session each.

All of them report levels, not edges: what is true is sent until it is acknowledged, whatever happened before.
"""
