# SPDX-License-Identifier: Apache-2.0
"""The machine's metrics, sampled once a minute and stored for weeks; a heartbeat's three are node.heartbeat_metrics.

store = MetricsStore(paths.metrics, boot_id=…)          # metrics.db; reading needs no running agent
Sampler(store).start()                                  # reads /proc, runs no program
for sample in store.samples(since=…): …                 # oldest first
"""
