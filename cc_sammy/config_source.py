# SPDX-License-Identifier: Apache-2.0
"""Where a booted machine's own `sammy:` key is found: cloud-init's merged configuration of this instance."""

from __future__ import annotations

from typing import Any

from cc_sammy.common import files
from cc_sammy.errors import SammyError

INSTANCE = "/var/lib/cloud/instance/cloud-config.txt"


def sammy_key(path: str) -> Any:
    """Return the value of the file's `sammy:` key. SammyError when there is no file, no YAML or no key."""
    import yaml

    text = files.read_text(path)
    if text is None:
        raise SammyError(f"{path}: no such file")
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SammyError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict) or "sammy" not in document:
        raise SammyError(f"{path} has no top-level key sammy:", "Without it cloud-init-sammy does nothing")
    return document["sammy"]


def system_configuration() -> Any:
    """Return the `sammy:` key this machine was booted with; an empty mapping when there is none."""
    try:
        return sammy_key(INSTANCE)
    except SammyError:
        return {}
