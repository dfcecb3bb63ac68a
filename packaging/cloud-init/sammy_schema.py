# SPDX-License-Identifier: Apache-2.0
"""Teaches cloud-init's validation the key `sammy:`, so that a boot with it is not called degraded.

From 23.4 on cloud-init knows its own top-level keys only and offers no way to add one (issue 5558). It does import
what lies in /var/lib/cloud/handlers before it validates, as handlers of user-data parts; this is such a handler, and
wraps the function that gives the schema, in the boot's process alone. A wrong key under `sammy:` is still reported.
Whatever goes wrong here leaves cloud-init as it was. Off with the file /etc/cloud/sammy-no-schema.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from typing import Any

OFF = "/etc/cloud/sammy-no-schema"
PART = "text/x-sammy-config"
LOG = logging.getLogger(__name__)

handler_version = 3


def list_types() -> list[str]:
    """Return the part types this handler takes; cloud-init wants at least one."""
    return [PART]


# cloud-init's signature for handler_version 3
def handle_part(  # noqa: PLR0917
    data: Any, ctype: str, filename: str, payload: Any, frequency: str, headers: Any = None
) -> None:
    """Do nothing: the work is done by the import. A part of our type would be lost, so it is named."""
    if ctype == PART:
        LOG.warning("sammy: a part of type %s is not read; write the key sammy: in #cloud-config", PART)


def without_own_keys(node: Any) -> Any:
    """Return the schema without what only sammy reads (x-…) and the name of its draft."""
    if isinstance(node, list):
        return [without_own_keys(child) for child in node]
    if isinstance(node, dict):
        return {key: without_own_keys(child) for key, child in node.items() if not key.startswith(("x-", "$schema"))}
    return node


def definition() -> dict[str, Any]:
    """Return the definition that the schema of cloud-config gets: the key may also be empty."""
    import cc_sammy

    path = os.path.join(os.path.dirname(cc_sammy.__file__), "contract", "schema.json")
    with open(path, encoding="utf-8") as file:
        schema = without_own_keys(json.load(file))
    return {"type": "object", "properties": {"sammy": {**schema, "type": ["object", "null"]}}}


def extend(schema: Any, ours: dict[str, Any]) -> Any:
    """Add our key to the schema of cloud-config, in place; other schemas (network) are returned as they are."""
    if "cc_ansible" not in schema.get("$defs", {}) or "allOf" not in schema or "cc_sammy" in schema["$defs"]:
        return schema
    schema["$defs"]["cc_sammy"] = ours
    schema["allOf"].append({"$ref": "#/$defs/cc_sammy"})
    if "properties" in schema:  # from 23.4 on: the keys there are
        schema["properties"]["sammy"] = {}
    names = schema["$defs"].get("all_modules", {}).get("enum")  # for module lists in user-data
    if names is not None and "sammy" not in names:
        names.append("sammy")
    return schema


def wrap(get_schema: Callable[..., Any], ours: dict[str, Any]) -> Callable[..., Any]:
    """Return the function that cloud-init calls for its schema from now on."""

    def get_schema_with_sammy(*args: Any, **keywords: Any) -> Any:
        schema = get_schema(*args, **keywords)
        try:
            return extend(schema, ours)
        except Exception as error:  # a schema of a shape not known yet
            LOG.debug("sammy: the schema stays without the key sammy: %s", error)
            return schema

    get_schema_with_sammy.sammy = True  # type: ignore[attr-defined]
    return get_schema_with_sammy


def install() -> None:
    """Wrap cloud-init's function once, unless turned off."""
    if os.path.exists(OFF):
        return
    try:
        from cloudinit.config import schema

        if not hasattr(schema.get_schema, "sammy"):
            schema.get_schema = wrap(schema.get_schema, definition())
    except Exception as error:  # cloud-init without validation, or of a shape not known yet
        LOG.debug("sammy: cloud-init's validation stays without the key sammy: %s", error)


install()
