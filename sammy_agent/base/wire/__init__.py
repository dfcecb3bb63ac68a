# SPDX-License-Identifier: Apache-2.0
"""SAM's wire, in one place for both ends: what agent and control plane call things and which bounds they keep.

Names, numbers, paths and forms of text, as they were observed at a running SAM; what is an addition of ours says so.
The agent's reporters and the embedded control plane both read it, and tests/contract holds it against the recorded
exchanges: that our two halves agree proves nothing. Here belongs what both ends must spell alike; not how a request is
sent (`daemon/client`), what is kept of it (`storage`), or which body is refused (`control_plane/*_schema`).
"""
