# SPDX-License-Identifier: Apache-2.0
"""How this machine fares: three figures for each heartbeat (`collect`), and once a minute all of them, kept.

store = MetricsStore(paths.metrics, boot_id=…)          # metrics.db; reading needs no running agent
Sampler(store).start()                                  # reads /proc, runs no program
for sample in store.samples(since=…): …                 # oldest first
"""

from __future__ import annotations

from sammy_agent.node.heartbeat_metrics import collect

__all__ = ["collect"]
