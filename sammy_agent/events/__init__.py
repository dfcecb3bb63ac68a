# SPDX-License-Identifier: Apache-2.0
"""What happened on this node, kept for those who ask later."""
