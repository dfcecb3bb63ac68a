# SPDX-License-Identifier: Apache-2.0
"""The host firewall: who may reach the agent's port, ssh and the cloud's metadata address.

Read in this order: ranges (who), policy (from configuration), ruleset and metadata (which rules), table (how they
become nft text) and chain (iptables' lines), readback (does the kernel still hold them), nftables and iptables (the
two backends' I/O), trial and packets (the rules tried in a throw-away namespace), others (what else closes), enforce
(the order of an apply), refresh (the fetched list), verbs (the command). kept and lock are what all of them share;
settings and __main__ make a start cheap; boot.sh is what a boot runs instead of all this.
"""
