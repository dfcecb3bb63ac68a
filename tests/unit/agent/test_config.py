# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import pytest

from cc_sammy import config as cc_config
from cc_sammy.steps.agent_install import agent_config
from sammy_agent.base.errors import ConfigInvalid
from sammy_agent.base.runtime.paths import Paths
from sammy_agent.node import config


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    Path(Paths(str(tmp_path)).config).parent.mkdir(parents=True)
    return Paths(str(tmp_path))


def test_what_agent_install_writes_is_what_the_agent_reads(paths: Paths) -> None:
    control = {"url": "https://192.0.2.7:8787/", "token_file": "/etc/sammy/t", "ca_file": "/etc/sammy/ca"}
    wanted = cc_config.load({"node_id": "n-1", "control_plane": control, "agent": {"port": 9443}})
    Path(paths.config).write_text(agent_config(wanted))
    loaded = config.load(paths)
    assert loaded == config.AgentConfig(
        "n-1", "https://192.0.2.7:8787", f"{paths.root}/etc/sammy/t", f"{paths.root}/etc/sammy/ca", 9443, True, 60.0
    )
    Path(paths.config).write_text(agent_config(cc_config.load({"node_id": "n-1"})))
    assert config.load(paths) is None, "no control plane"


def test_what_a_hand_left_out_has_the_schemas_default(paths: Paths) -> None:
    Path(paths.config).write_text(json.dumps(RIGHT))
    loaded = config.load(paths)
    wanted = cc_config.load({}).agent
    assert loaded is not None and (loaded.port, loaded.debug_push) == (wanted.port, wanted.debug_push)


def test_no_file_is_no_control_plane(paths: Paths) -> None:
    assert config.load(paths) is None


RIGHT = {"node_id": "n1", "control_plane_url": "https://x"}


@pytest.mark.parametrize("url", ["http://127.0.0.1:8787", "http://[::1]:1", "http://localhost", "https://192.0.2.1"])
def test_addresses_that_are_safe(paths: Paths, url: str) -> None:
    Path(paths.config).write_text(json.dumps({**RIGHT, "control_plane_url": url}))
    loaded = config.load(paths)
    assert loaded is not None and loaded.url == url


@pytest.mark.parametrize(
    "text",
    ["{", "[]", *(json.dumps({**RIGHT, **wrong}) for wrong in (
        {"control_plane_url": "http://192.0.2.1"},
        {"control_plane_url": "ftp://x"},
        {"control_plane_url": "https://"},
        {"node_id": None},
        {"node_id": "a/b"},
        {"port": "x"},
        {"port": 0},
        {"heartbeat_seconds": 0},
        {"heartbeat_seconds": True},
    ))],
)  # fmt: skip
def test_what_cannot_be_right_is_said(paths: Paths, text: str) -> None:
    Path(paths.config).write_text(text)
    with pytest.raises(ConfigInvalid) as raised:
        config.load(paths)
    assert raised.value.problem.next_step
