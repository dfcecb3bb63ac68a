# SPDX-License-Identifier: Apache-2.0
"""The wire's functions at their edges; what it says is held against SAM's records in tests/contract."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cc_sammy
from sammy_agent.base.wire import endpoints, ids, statuses
from sammy_agent.base.wire.timestamps import iso, seconds_of

TEMPLATES = sorted(path for path in vars(endpoints).values() if isinstance(path, str) and path.startswith("/api/"))


@pytest.mark.parametrize("text", ["a", "n1", "01JDEFGHJKMNPQRSTVWXYZ0123", "a.b_c-d", "9" * 128])
def test_an_id(text: str) -> None:
    assert ids.is_id(text)


@pytest.mark.parametrize("text", ["", ".", "..", "-x", "_x", "a/b", "a b", "ä", "a\n", "9" * 129, None, 5, b"a"])
def test_no_id(text: object) -> None:
    assert not ids.is_id(text)


def test_the_user_datas_schema_takes_the_same_ids() -> None:
    schema = json.loads((Path(cc_sammy.__file__).parent / "contract" / "schema.json").read_text())
    assert schema["properties"]["node_id"]["pattern"] == f"^{ids.ID_PATTERN}$"


def test_ulids_and_checksums() -> None:
    assert ids.is_ulid("01JDEFGHJKMNPQRSTVWXYZ0123") and ids.is_ulid("01jdefghjkmnpqrstvwxyz0123")
    for text in ("8" + "0" * 25, "0" * 25, "0" * 27, "0" * 25 + "U", "0" * 25 + "\n", None, 7):
        assert not ids.is_ulid(text), text
    assert ids.is_sha256("0f" * 32)
    assert not any(map(ids.is_sha256, ("0F" * 32, "0f" * 31, "0f" * 32 + "\n", None)))


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_filled_in_template_is_of_its_route_alone(template: str) -> None:
    values = dict.fromkeys(("node", "workspace", "project", "session", "artifact"), "x-1") | {"incident": "0A"}
    path = template.format_map(values)
    matching = {other: re.fullmatch(endpoints.route(other), path) for other in TEMPLATES}
    assert {other for other, match in matching.items() if match} == {template}
    found = matching[template]
    assert found is not None
    assert list(found.groups()) == [values[name] for name in re.findall(r"\{(\w+)\}", template)]


def test_a_route_takes_no_path_out_of_it() -> None:
    route = endpoints.route(endpoints.HEARTBEAT)
    for node in ("..", "a/b", "", "a%2Fb", "-x", "x" * 129):
        assert re.fullmatch(route, f"/api/nodes/{node}/heartbeat") is None
    assert re.fullmatch(endpoints.route(endpoints.JWKS), "/Xwell-known/jwks.json") is None


def test_words_are_said_once() -> None:
    for words in (statuses.MESSAGE_ROLES, statuses.ACTIVITIES, statuses.NODE_BOOT_LOG_STATUSES):
        assert len(set(words)) == len(words)
    assert len(set(statuses.ERROR_CODES.values())) == len(statuses.ERROR_CODES)


@given(st.integers(0, 253402300799999))
@settings(deadline=None)
def test_a_time_comes_back_to_the_millisecond(milliseconds: int) -> None:
    text = iso(milliseconds / 1000)
    assert text is not None and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", text)
    assert abs(seconds_of(text) - milliseconds / 1000) < 0.0011  # cut, not rounded, and what a float loses


def test_a_time_that_is_none() -> None:
    assert iso(None) is None and iso(float("nan")) is None and iso(1e18) is None and iso(float("inf")) is None
    assert iso(0, "seconds") == "1970-01-01T00:00:00Z"
    with pytest.raises(ValueError, match="yesterday"):
        seconds_of("yesterday")


def test_it_is_light_to_import() -> None:
    """An idle agent loads it, and `sammy-agent token` too."""
    program = (
        "import sys; before = set(sys.modules)\n"
        "from sammy_agent.base.wire import claims, endpoints, fields, ids, limits, statuses, timestamps\n"
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}))"
    )
    loaded = set(
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    )
    assert not loaded & {"dataclasses", "json", "inspect", "requests", "tornado", "jwt", "cryptography", "sqlite3"}
