# SPDX-License-Identifier: Apache-2.0
"""How rules reach the kernel and are read back: nftables, iptables; no policy."""
