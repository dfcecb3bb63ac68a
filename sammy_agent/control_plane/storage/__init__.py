# SPDX-License-Identifier: Apache-2.0
"""What the control plane keeps on disk; no HTTP."""
