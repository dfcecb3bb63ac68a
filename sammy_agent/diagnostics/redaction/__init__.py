# SPDX-License-Identifier: Apache-2.0
"""Which secrets are removed from what leaves the node, and how; no reading of logs.

`secret_patterns` says what looks like one, `node_secrets` which are this node's own, `secret_matcher` finds those in
any encoding, `redactor` applies both, `pseudonyms` replaces hosts and addresses.
"""
