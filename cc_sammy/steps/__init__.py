# SPDX-License-Identifier: Apache-2.0
"""The boot steps, one small module each, in the declared order of the timings table.

The firewall runs first of all: every other step runs after it, however it ended, and the agent needs it.
"""

from __future__ import annotations

from cc_sammy.steps.base import Step


def declared(
    *, docker_in_image: bool = False, nodejs_by_apt: bool = False, swap_is_applicable: bool = False
) -> tuple[Step, ...]:
    """Return the steps in declared order.

    :param docker_in_image: dockerd is in the image, set up: its step need not wait for apt's packages.
    :param nodejs_by_apt: Node.js comes as a package, so its step waits for apt; an archive is fetched in parallel.
    :param swap_is_applicable: a swap file is wanted, or one of ours exists; most machines have neither.
    """
    from cc_sammy.steps import (
        agent_install,
        devcontainer_cli,
        docker,
        docker_restart,
        firewall,
        image_prepull,
        journald_config,
        metadata_block,
        nodejs_install,
        packages,
        swap,
        tls_permissions,
    )

    return (
        packages.STEP,
        docker.STEP_IN_IMAGE if docker_in_image else docker.STEP,
        firewall.STEP,
        agent_install.STEP,
        tls_permissions.STEP,
        nodejs_install.STEP_BY_APT if nodejs_by_apt else nodejs_install.STEP,
        devcontainer_cli.STEP,
        journald_config.STEP,
        image_prepull.STEP,
        docker_restart.STEP,
        metadata_block.STEP,
        *((swap.STEP,) if swap_is_applicable else ()),
    )
