# SPDX-License-Identifier: Apache-2.0
"""The management server: what the control plane, and no other client, may request of this node.

`listener` is all of it that an idle agent carries. The first connection loads the rest, tornado in a thread of its own:
`app` (bounds and the thread), `auth` (whose token), `routes` (what is answered).
"""
