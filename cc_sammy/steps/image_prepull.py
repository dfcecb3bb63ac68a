# SPDX-License-Identifier: Apache-2.0
"""Container images on disk before the first workspace asks for them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence

from cc_sammy.config import Config
from cc_sammy.errors import StepFailed
from cc_sammy.host.host import Host
from cc_sammy.steps.base import Step
from cc_sammy.system import docker_api as engine

AT_ONCE = 3  # images; dockerd itself fetches three layers of each


def satisfied(host: Host, config: Config) -> str | None:
    """Every image is there, or none is named."""
    images = config.image_prepull.images
    if not images:
        return "image_prepull.images names none"
    if config.docker.source == "none":
        return "docker.source is none"
    try:
        digests = {name: engine.digest(name) for name in images}
    except OSError:
        return None  # dockerd is silent: run() waits for it and says so
    there = {name: digest for name, digest in digests.items() if digest is not None}
    if len(there) < len(digests):
        return None
    host.results.update(there)  # a tag moves: the record says what it meant here
    return f"{len(images)} images are there"


def run(host: Host, config: Config) -> None:
    """Pull the missing images side by side; fail with every one that could not be had."""
    engine.wait(host)
    absent = [name for name in config.image_prepull.images if engine.digest(name) is None]
    failures = _pull(host, absent, float(config.step_deadline))
    if failures:
        transient = any(getattr(failure, "transient", True) for failure in failures)
        raise StepFailed(
            "; ".join(map(str, failures)), "Look at the image's name and its registry", transient=transient
        )


def _pull(host: Host, names: Sequence[str], seconds: float) -> list[Exception]:
    """Pull the images side by side; return what went wrong.

    Threads of our own: an executor's are joined when the process ends, also when it is to end at once.
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
                engine.pull(name, seconds, host.tell)
            except Exception as error:
                failures.put(error)
            else:
                failures.put(None)

    for _ in range(min(AT_ONCE, len(names))):
        threading.Thread(target=work, name="sammy-pull", daemon=True).start()
    return [failure for _ in names if (failure := failures.get()) is not None]


# After Docker's restart, which would cut the pulls, and the metadata block: what readiness waits for goes first.
STEP = Step(
    "image-prepull",
    "image_prepull",
    satisfied,
    run,
    needs=("docker",),
    after=("docker-restart", "metadata-block"),
    retries=2,
    awaited=False,
)
