# SPDX-License-Identifier: Apache-2.0
"""The outbox: what must reach the control plane is on disk before its caller goes on.

`retry_policy` decides what is retried, and when; `dispatcher` does it. SAM deleted a batch at 401 and 403, dropped the
newest row when full, and let one bad row block all later ones. Here a row is in exactly one of three places: in the
queue, acknowledged, or among the dead letters with the reason; what a full queue has to drop is counted.
"""
