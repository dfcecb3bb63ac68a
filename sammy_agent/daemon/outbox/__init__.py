# SPDX-License-Identifier: Apache-2.0
"""The outbox: what must reach the control plane is on disk before anyone goes on, and leaves it acknowledged or named.

SAM deleted a batch at 401 and 403, dropped the newest row when full, and let one bad row block all later ones. Here a
row is in exactly one of three places: in the queue, acknowledged, or set aside with the reason; what a full queue
has to give up is counted.
"""
