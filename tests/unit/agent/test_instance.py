# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from sammy_agent.base.runtime.paths import Paths
from sammy_agent.node import instance_id

KEPT = ("token", "token_source", "ready", "events", "ready_acknowledged", "tls_mark", "tls_key", "tls_certificate")


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(str(tmp_path))


def write(path: str, text: str = "x") -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


def never_wait(seconds: float) -> bool:
    raise AssertionError("nothing to wait for")


def settled(paths: Paths) -> str | None:
    found = instance_id.resolve(paths, never_wait)
    instance_id.persist(paths, found)
    return found


@pytest.fixture
def old_machine(paths: Paths) -> Paths:
    write(paths.instance, "i-old\n")
    for name in KEPT:
        write(getattr(paths, name))
    return paths


def there(paths: Paths) -> set[str]:
    return {name for name in KEPT if Path(getattr(paths, name)).exists()}


def test_the_same_machine_keeps_everything(old_machine: Paths) -> None:
    write(old_machine.under_root(instance_id.THIS_BOOT), "i-old\n")
    assert settled(old_machine) == "i-old"
    assert there(old_machine) == set(KEPT)


def test_a_new_machine_keeps_nothing(old_machine: Paths) -> None:
    write(old_machine.under_root(instance_id.THIS_BOOT), "i-new\n")
    assert settled(old_machine) == "i-new"
    assert there(old_machine) == set()
    assert Path(old_machine.instance).read_text() == "i-new\n"


def test_a_key_that_is_not_ours_stays(old_machine: Paths) -> None:
    Path(old_machine.tls_mark).unlink()
    write(old_machine.under_root(instance_id.THIS_BOOT), "i-new")
    settled(old_machine)
    assert there(old_machine) == {"tls_key", "tls_certificate"}


def test_a_kill_between_discarding_and_remembering_discards_again(old_machine: Paths) -> None:
    write(old_machine.under_root(instance_id.THIS_BOOT), "i-new")
    assert instance_id.resolve(old_machine, never_wait) == "i-new"
    write(old_machine.token, "of a process that was killed")
    settled(old_machine)
    assert there(old_machine) == set()


def test_who_has_something_to_lose_waits_for_cloud_init(old_machine: Paths) -> None:
    write(old_machine.under_root(instance_id.ENABLED), "")
    write(old_machine.under_root(instance_id.LAST_BOOT), "i-old")  # the last boot's word: true on a copied disk too
    waits = []

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        if len(waits) == 3:
            write(old_machine.under_root(instance_id.THIS_BOOT), "i-new")
        return False

    assert instance_id.resolve(old_machine, wait) == "i-new"
    assert len(waits) == 3


def test_it_does_not_wait_for_ever(old_machine: Paths) -> None:
    write(old_machine.under_root(instance_id.ENABLED), "")
    write(old_machine.under_root(instance_id.LAST_BOOT), "i-old")
    assert instance_id.resolve(old_machine, lambda seconds: False, patience=0.0) == "i-old"
    assert there(old_machine) == set(KEPT)


def test_a_fresh_machine_does_not_wait(paths: Paths) -> None:
    write(paths.under_root(instance_id.ENABLED), "")
    assert settled(paths) is None
    write(paths.under_root(instance_id.THIS_BOOT), "i-1")
    assert settled(paths) == "i-1"
