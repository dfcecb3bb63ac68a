# SPDX-License-Identifier: Apache-2.0
"""The firewall's settings without the price of reading the whole configuration: validation costs 120 ms, this 1 ms.

It is stored with the identity of the files it came from; any change of them or of the schema, or a SAMMY_* variable,
makes `load` read the configuration again.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from cc_sammy.common import files
from cc_sammy.contract import paths
from cc_sammy.contract.firewall_config import FirewallConfig
from cc_sammy.firewall import boot_files

CACHE = boot_files.FOLDER + "/settings.json"
USER_DATA = "/var/lib/cloud/instance/cloud-config.txt"
SCHEMA = os.path.join(os.path.dirname(paths.__file__), "schema.json")  # schema.PATH, without its import


def load(environment: Mapping[str, str]) -> tuple[FirewallConfig, int]:
    """Return the firewall's section and the agent's port.

    :raises ConfigError: the configuration is wrong.
    """
    if any(name.startswith("SAMMY_") for name in environment):
        return _read(environment)
    sources = identity((USER_DATA, paths.OVERRIDES, SCHEMA))
    with contextlib.suppress(ValueError, KeyError, TypeError):
        held = json.loads(files.read_text(CACHE) or "")
        if held["sources"] == sources:
            return _from_json(held["firewall"]), int(held["agent_port"])
    config, port = _read(environment)
    with contextlib.suppress(OSError):  # not root, or a full disk: the next start reads it again, no more
        text = json.dumps({"sources": sources, "firewall": config._asdict(), "agent_port": port})
        files.write_text(CACHE, text, mode=0o600)
    return config, port


def identity(names: tuple[str, ...]) -> list[list[int]]:
    """Return what changes whenever one of the files does."""
    found = []
    for path in names:
        try:
            stat = os.stat(path)
            found.append([stat.st_ino, stat.st_size, stat.st_mtime_ns])
        except OSError:
            found.append([])
    return found


def _from_json(values: Mapping[str, Any]) -> FirewallConfig:
    """Return what `load` has written and validated before."""
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return FirewallConfig(**fields)


def _read(environment: Mapping[str, str]) -> tuple[FirewallConfig, int]:
    if sys.flags.no_site:  # the cheap start: what validation needs is found now
        import site

        site.main()
    from cc_sammy import config
    from cc_sammy.config_source import system_configuration

    loaded = config.load(system_configuration(), files.read_text(paths.OVERRIDES), environment)
    return loaded.firewall, loaded.agent.port
