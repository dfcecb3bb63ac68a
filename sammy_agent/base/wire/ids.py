# SPDX-License-Identifier: Apache-2.0
"""Ids: of nodes, workspaces, projects and sessions, which become parts of paths, and of incidents.

SAM makes ULIDs and takes letters, digits, `_` and `-`; a person who names nodes also writes dots. No id begins with a
sign, so none is `.` or `..` or looks like an option, and none is longer than a file name may be.
"""

from __future__ import annotations

import re
from typing import TypeGuard

ID_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"  # also in cc_sammy/contract/schema.json, for the user-data
ID_RULE = "Letters, digits, . _ and -, at most 128, the first a letter or digit"
ULID_PATTERN = r"[0-7][0-9A-HJKMNP-TV-Z]{25}"  # Crockford's base 32; the first character keeps it within 128 bits
INCIDENT_PATTERN = r"[0-9A-Za-z]{1,64}"  # of a path; one that is no ULID is then refused by name
SHA256_PATTERN = r"[0-9a-f]{64}"


def is_id(text: object) -> TypeGuard[str]:
    """Tell whether this can be an id of a node, a workspace, a project, a session or an artifact."""
    return isinstance(text, str) and re.fullmatch(ID_PATTERN, text) is not None


def is_ulid(text: object) -> TypeGuard[str]:
    """Tell whether this can be an incident's id; SAM takes small letters too."""
    return isinstance(text, str) and re.fullmatch(ULID_PATTERN, text, re.IGNORECASE) is not None


def is_sha256(text: object) -> TypeGuard[str]:
    """Tell whether this is a checksum as the wire writes it: small hexadecimal digits."""
    return isinstance(text, str) and re.fullmatch(SHA256_PATTERN, text) is not None
