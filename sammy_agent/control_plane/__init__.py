# SPDX-License-Identifier: Apache-2.0
"""The embedded control plane: all that one person needs to run nodes on one machine, and the reference for the wire.

Here belongs what serves nodes and their operator; nothing of the agent, which it knows by base/wire alone. An agent
that works with it works with a real SAM, except that SAM answers a bad token with 500 where this one answers 401.

- `server`: one process, its address and TLS        - `api`: the HTTP routes; no SQL
- `storage`: what is kept on disk; no HTTP          - `cli`: what the operator types; no route
- `node_schema`, `workspace_schema`: which bodies are accepted, and what is shown of what they said
- `token_signer`: tokens and their public keys      - `certificate_authority`: the server's and the nodes' certificates
- `node_client`, `reachability_poller`: requests to the nodes' own servers
- `user_data`: the #cloud-config of a new node
"""
