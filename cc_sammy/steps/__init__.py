# SPDX-License-Identifier: Apache-2.0
"""The boot steps, one small module each, in the declared order of the timings table.

The firewall runs first of all: every other step comes after it, however it ended, and the agent needs it.
"""

from __future__ import annotations

from cc_sammy.steps.base import Step


def declared(
    *, docker_is_there: bool = False, nodejs_is_apts_work: bool = False, swap_is_concerned: bool = False
) -> tuple[Step, ...]:
    """Return the steps in declared order.

    :param docker_is_there: dockerd is in the image, set up: the step need not wait for the packages it would come with.
    :param nodejs_is_apts_work: Node.js comes as a package, so its step waits for those; an archive is fetched beside.
    :param swap_is_concerned: a swap file is wanted, or one of ours is there; most machines have neither.
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
        docker.STEP_IN_IMAGE if docker_is_there else docker.STEP,
        firewall.STEP,
        agent_install.STEP,
        tls_permissions.STEP,
        nodejs_install.STEP_BY_APT if nodejs_is_apts_work else nodejs_install.STEP,
        devcontainer_cli.STEP,
        journald_config.STEP,
        image_prepull.STEP,
        docker_restart.STEP,
        metadata_block.STEP,
        *((swap.STEP,) if swap_is_concerned else ()),
    )
