# SPDX-License-Identifier: Apache-2.0
"""Pulls container images before the first workspace needs them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence

from cc_sammy.config import Config
from cc_sammy.errors import StepFailed
from cc_sammy.host.host import Host
from cc_sammy.steps.base import Step
from cc_sammy.system import docker_api as engine

MAX_PARALLEL_PULLS = 3  # images; dockerd itself fetches three layers of each


def already_done(host: Host, config: Config) -> str | None:
    """Every image is present, or none is configured."""
    images = config.image_prepull.images
    if not images:
        return "image_prepull.images is empty"
    if config.docker.source == "none":
        return "docker.source is none"
    try:
        digests = {name: engine.digest(name) for name in images}
    except OSError:
        return None  # dockerd does not answer: run() waits for it and reports it
    there = {name: digest for name, digest in digests.items() if digest is not None}
    if len(there) < len(digests):
        return None
    host.results.update(there)  # a tag moves: the record says which digest it was here
    return f"{len(images)} images are present"


def run(host: Host, config: Config) -> None:
    """Pull the missing images in parallel; fail naming each one that could not be pulled."""
    engine.wait(host)
    absent = [name for name in config.image_prepull.images if engine.digest(name) is None]
    failures = _pull(host, absent, float(config.step_deadline))
    if failures:
        transient = any(getattr(failure, "transient", True) for failure in failures)
        raise StepFailed(
            "; ".join(map(str, failures)), "Look at the image's name and its registry", transient=transient
        )


def _pull(host: Host, names: Sequence[str], seconds: float) -> list[Exception]:
    """Pull the images in parallel; return what failed.

    Not an executor: its threads are joined when the process ends, even when it must end at once.
    """
    left: queue.SimpleQueue[str] = queue.SimpleQueue()
    failures: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
    for name in names:
        left.put(name)

    def work() -> None:
        while True:
            try:
                name = left.get_nowait()
            except queue.Empty:
                return
            try:
                engine.pull(name, seconds, host.print_line)
            except Exception as error:
                failures.put(error)
            else:
                failures.put(None)

    for _ in range(min(MAX_PARALLEL_PULLS, len(names))):
        threading.Thread(target=work, name="sammy-pull", daemon=True).start()
    return [failure for _ in names if (failure := failures.get()) is not None]


# After Docker's restart, which would cut the pulls, and the metadata block: what readiness waits for goes first.
STEP = Step(
    "image-prepull",
    "image_prepull",
    already_done,
    run,
    needs=("docker",),
    after=("docker-restart", "metadata-block"),
    retries=2,
    blocks_ready=False,
)
