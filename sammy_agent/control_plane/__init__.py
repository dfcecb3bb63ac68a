# SPDX-License-Identifier: Apache-2.0
"""The embedded control plane: all that one person needs to run nodes on one machine, and the reference for the wire.

It speaks SAM's wire, so that an agent that is content here is content with a real deployment. Where SAM answers a
bad token with 500, this one answers 401: a node that cannot be let in should be told so.

- `app`: routes and the server's life    - `nodes`: what a node is and how it fares    - `store`: SQLite
- `tokens`: callback tokens and JWKS     - `authority`: CA, server certificate, nodes' certificates
- `cloud_config`: a new node's user-data - `cli`: the verbs
"""
