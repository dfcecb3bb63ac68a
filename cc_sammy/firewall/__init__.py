# SPDX-License-Identifier: Apache-2.0
"""The host firewall: who may reach the agent's port, ssh and the cloud's metadata address.

Read in this order: model/networks (who), model/policy (from configuration), model/port_rules and metadata_table (which
rules), model/nft_table (how they become nft text) and model/iptables_chain (iptables' lines), backends/drift (does the
kernel still hold them), backends/nftables and iptables (the two backends' I/O), backends/foreign_rules (what else
closes), dry_run and probe_packets (the rules tried in a throw-away namespace), enforce (the order of an apply),
rollback, cloudflare_refresh (the fetched list), commands. boot_files and lock are what all share; settings_cache
and __main__ make a start cheap; boot.sh is what a boot runs instead of all this.
"""
