# SPDX-License-Identifier: Apache-2.0
"""cloud-init's door into sammy: `meta` and `handle`, and nothing else.

cloud-init imports this file on every boot of every machine that has the package, before it looks whether the
configuration has a `sammy:` key; an exception here would stop the whole stage. So it imports nothing itself.
"""

from __future__ import annotations

meta = {
    "id": "cc_sammy",
    "name": "Sammy",
    "title": "Bring a VM for AI coding agents from power-on to ready",
    "description": "Runs the ordered boot steps named by the sammy: key and logs what each cost.",
    "distros": ["all"],
    "examples": [],
    # Every boot: cloud-init writes its per-instance semaphore before the handler runs and keeps it after a failure.
    "frequency": "always",
    "activate_by_schema_keys": ["sammy"],
}


# Not five parameters: from 23.2 on cloud-init takes a function of five for the old style and logs a deprecation.
def handle(name: str, cfg: dict[str, object], *rest: object, **keywords: object) -> None:
    """Run the boot steps; called by cloud-init 22.4 to 26 (positional with LOG to 23.1, keywords after)."""
    import logging

    if "sammy" not in cfg:
        logging.getLogger(__name__).debug("Skipping module named %s, no 'sammy' key in configuration", name)
        return
    cloud = keywords["cloud"] if keywords else rest[0]
    import time

    cpu_before = time.process_time()  # before our imports: they are part of what we cost
    from cc_sammy.engine import provision

    provision.from_cloud_init(name, cfg, cloud, cpu_before)
