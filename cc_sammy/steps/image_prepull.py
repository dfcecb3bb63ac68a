# SPDX-License-Identifier: Apache-2.0
"""Container images on disk before the first workspace asks for them."""

from __future__ import annotations

import concurrent.futures

from cc_sammy import docker as engine
from cc_sammy.config import Config
from cc_sammy.errors import StepFailed
from cc_sammy.host import Host
from cc_sammy.plan import Step


def satisfied(host: Host, config: Config) -> str | None:
    """Every image is there, or none is named."""
    images = config.image_prepull.images
    if not images:
        return "image_prepull.images names none"
    if config.docker.source == "none":
        return "docker.source is none"
    try:
        return None if any(not engine.has_image(name) for name in images) else f"{len(images)} images are there"
    except OSError:
        return None  # dockerd is silent: run() waits for it and says so


def run(host: Host, config: Config) -> None:
    """Pull the missing images side by side; fail with every one that could not be had."""
    engine.wait(host)
    absent = [name for name in config.image_prepull.images if not engine.has_image(name)]
    with concurrent.futures.ThreadPoolExecutor(max_workers=3) as pool:
        pulls = [pool.submit(engine.pull, name, float(config.step_deadline)) for name in absent]
        failures = [failure for pull in pulls if (failure := pull.exception()) is not None]
    if failures:
        passing = any(getattr(failure, "passing", True) for failure in failures)
        raise StepFailed("; ".join(map(str, failures)), "Look at the image's name and its registry", passing=passing)


STEP = Step("image-prepull", "image_prepull", satisfied, run, needs=("docker",), retries=2)
