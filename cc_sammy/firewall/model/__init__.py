# SPDX-License-Identifier: Apache-2.0
"""What the rules shall be, free of I/O: policy, networks, rule sets."""
