#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Loads the rules that were last applied, at every boot, without Python: what sammy-firewall.service runs.
# One file that fails keeps no other from being loaded. The chain is filled before INPUT jumps to it.
set -u
folder=${1:-/var/lib/sammy/firewall}
failed=0
for file in "$folder/applied.nft" "$folder/metadata.nft"; do
    test ! -e "$file" || nft -f "$file" || failed=1
done
for command in iptables-nft ip6tables-nft iptables-legacy ip6tables-legacy; do
    file=$folder/$command.rules
    test -e "$file" || continue
    if "$command-restore" --noflush --wait 10 "$file"; then
        "$command" -w 10 -C INPUT -j SAMMY 2>/dev/null || "$command" -w 10 -I INPUT 1 -j SAMMY || failed=1
    else
        failed=1
    fi
done
exit $failed
