# SPDX-License-Identifier: Apache-2.0
"""The firewall's configuration for tests: the schema's defaults, and what a test changes of them."""

from __future__ import annotations

from typing import Any

from cc_sammy import config
from cc_sammy.contract.firewall_config import FirewallConfig

# once, at import: a test over a fake file system has no schema
DEFAULTS = config.load({})
METADATA = DEFAULTS.metadata_block.addresses


def firewall_config(**changes: Any) -> FirewallConfig:
    """Return the defaults with these changes; they are not validated, as a test may want what the schema refuses."""
    return DEFAULTS.firewall._replace(**changes)
