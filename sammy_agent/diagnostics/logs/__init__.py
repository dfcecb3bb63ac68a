# SPDX-License-Identifier: Apache-2.0
"""Reads this node's logs: the journal, cloud-init's files and Docker's containers, as one stream in order of time.

It reads files and asks no agent, so that it tells why the agent is dead too. Pages go from the newest entry back; where
each source stands is in an opaque cursor, so that no page repeats or leaves out what another has.
"""
