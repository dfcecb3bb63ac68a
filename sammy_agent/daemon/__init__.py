# SPDX-License-Identifier: Apache-2.0
"""The program on the node; nothing that works without it."""
