# SPDX-License-Identifier: Apache-2.0
"""The agent's configuration: what agent-install wrote to /etc/sammy/agent.json, checked."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from cc_sammy.contract import schema
from cc_sammy.contract.agent_config import AgentConfigFile
from sammy_agent.base.errors import ConfigInvalid
from sammy_agent.base.runtime import files
from sammy_agent.base.runtime.paths import Paths
from sammy_agent.base.wire.ids import is_id

HEARTBEAT_SECONDS = 60.0
LOST_SECONDS = 600.0  # without contact; whoever comes back after longer sends a debug package
_NEXT = "It is written from the sammy: key of the user-data; correct that and run: cloud-init single --name sammy " \
        "--frequency always"  # fmt: skip


@dataclass(frozen=True)
class AgentConfig:
    """Who this node is and whom it reports to; paths are real ones, the root included."""

    node_id: str
    url: str
    token_file: str | None
    ca_file: str | None
    port: int
    debug_push: bool
    heartbeat_seconds: float = HEARTBEAT_SECONDS
    lost_seconds: float = LOST_SECONDS


def load(paths: Paths) -> AgentConfig | None:
    """Return the configuration, None when there is none or it names no control plane.

    :raises ConfigInvalid: the file is damaged or a value cannot be right.
    """
    text = files.read(paths.config)
    if text is None:
        return None
    try:
        document: Any = json.loads(text)
    except ValueError as error:
        raise ConfigInvalid(f"{paths.config} is damaged: {error}", _NEXT) from error
    if not isinstance(document, dict):
        raise ConfigInvalid(f"{paths.config} holds no mapping", _NEXT)
    file = _with_defaults(document)
    if not file.control_plane_url:
        return None
    return AgentConfig(
        node_id=_node_id(file.node_id, paths),
        url=_checked_url(str(file.control_plane_url)),
        token_file=_path(file.token_file, paths),
        ca_file=_path(file.ca_file, paths),
        port=_port(file.port),
        debug_push=file.debug_push is not False,
        heartbeat_seconds=_interval(document, "heartbeat_seconds", HEARTBEAT_SECONDS),
        lost_seconds=_interval(document, "lost_seconds", LOST_SECONDS),
    )


def _with_defaults(document: dict[str, Any]) -> AgentConfigFile:
    """Return the file's keys, unchecked; what somebody left out of it has the schema's default."""
    missing = [name for name in ("port", "debug_push") if name not in document]
    values = {**document, **{name: schema.default("agent", name) for name in missing}}
    file: dict[str, Any] = {name: values.get(name) for name in AgentConfigFile._fields}
    return AgentConfigFile(**file)


def _node_id(node: Any, paths: Paths) -> str:
    if not is_id(node):
        raise ConfigInvalid(f"{paths.config} has a control plane, but its node_id is {node!r}", _NEXT)
    return node


def _path(value: Any, paths: Paths) -> str | None:
    return paths.under_root(value) if isinstance(value, str) and value else None


def _port(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 65535:
        raise ConfigInvalid(f"port is {value!r}; allowed is 1 to 65535", _NEXT)
    return value


def _interval(document: dict[str, Any], name: str, default: float) -> float:
    value = document.get(name, default)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0.05 <= value <= 3600:
        raise ConfigInvalid(f"{name} is {value!r}; allowed is a number of seconds up to 3600", _NEXT)
    return float(value)


def _checked_url(url: str) -> str:
    """Refuse plain http to another machine: the token would travel in the clear."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigInvalid(f"control_plane.url is {url}; allowed is https://HOST[:PORT]", _NEXT)
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        raise ConfigInvalid(f"control_plane.url is {url}: without TLS only a loopback address is allowed", _NEXT)
    return url.rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
