# SPDX-License-Identifier: Apache-2.0
"""JSON from strangers, nodes, workspaces and control planes: read here and nowhere else, with a bound on everything.

json.loads alone is no guard. `[` five thousand times is a RecursionError, which is no ValueError; NaN comes through and
makes the next answer no JSON; a number of 400 digits overflows SQLite; a lone surrogate breaks whoever encodes it
later, far from here. Each was a traceback in a port that anybody may call.
"""

from __future__ import annotations

import base64
import json
import math
import re
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn

from sammy_agent.base.errors import AgentError, Code

MAX_DEPTH = 32  # SAM's deepest document has 6
YEAR_10000 = 253_402_300_800  # seconds since the epoch; no clock can show it
MAX_JWT_DEPTH = 4  # a claim is a text, a number or a list
MAX_VALUES = 100_000  # a debug package's manifest has some hundred, a page of events 5,000
MAX_DIGITS = 19  # of a whole number: what SQLite and JavaScript's BigInt columns hold; `allowed` values are far smaller
# A text without an end reaches to the end: were its quote not optional, each quote in it would be tried again.
_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*"?|[\[{]|[\]}]', re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")


class InvalidJSON(AgentError, ValueError):
    """A text is not JSON as it may be sent here; the message says why, in words for whoever sent it."""

    code = Code.JSON_INVALID


def read_json(data: bytes, *, max_depth: int = MAX_DEPTH, max_values: int = MAX_VALUES, repair: bool = False) -> Any:
    """Return what a JSON text holds; the size of `data` is bounded by whoever received it.

    :param max_depth: of arrays and objects in each other.
    :param max_values: of them all, counted from above before anything is built.
    :param repair: have lone surrogates replaced by U+FFFD rather than refused: for words that only a person reads.
    :raises InvalidJSON: for everything else.
    """
    if data.count(b",") + data.count(b"[") + data.count(b"{") >= max_values:
        raise InvalidJSON(f"more than {max_values} values")
    if data.count(b"[") + data.count(b"{") > max_depth:
        _check_depth(data, max_depth)
    try:
        document = json.loads(
            data.decode("utf-8-sig"), parse_int=_whole_number, parse_float=_number, parse_constant=_refuse_constant
        )
    except InvalidJSON:
        raise
    except RecursionError:
        raise InvalidJSON(f"nested deeper than {max_depth}") from None
    except UnicodeDecodeError:
        raise InvalidJSON("not UTF-8") from None
    except ValueError as error:
        raise InvalidJSON(f"not JSON: {str(error)[:100]}") from None
    # Only an escape can bring a surrogate: UTF-8 has none.
    if b"\\u" in data and _has_surrogate(document):
        if not repair:
            raise InvalidJSON("a text has half of a surrogate pair")
        return _repaired(document)
    return document


def read_object(data: bytes, **bounds: Any) -> dict[str, Any]:
    """Return the object that a JSON text holds; InvalidJSON also for JSON that is something else."""
    document = read_json(data, **bounds)
    if not isinstance(document, dict):
        raise InvalidJSON("not an object")
    return document


def read_http_date(text: str) -> float | None:
    """Return a date of a header (RFC 9110 5.6.7) in seconds since the epoch; None for what is none.

    A date without a zone is GMT, as asctime's form is: Python would take it for local time. A year of eleven digits
    was an OverflowError on each heartbeat.
    """
    try:
        date = parsedate_to_datetime(text[:100])
        seconds = (date.replace(tzinfo=timezone.utc) if date.tzinfo is None else date).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return seconds if 0 <= seconds < YEAR_10000 else None


def read_jwt(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return header and claims of a JWT; nothing is verified. Libraries read on only what this has read before.

    PyJWT lets a header of 5,000 nested arrays end in a RecursionError, and passes over a `crit` that it does not know.

    :raises InvalidJSON: it is none, or demands an extension (RFC 7515 4.1.11): none is known here.
    """
    parts = token.split(".")
    if len(parts) != 3:
        raise InvalidJSON("not a JWT of three parts")
    try:
        texts = [base64.b64decode(part + "=" * (-len(part) % 4), b"-_", validate=True) for part in parts[:2]]
    except ValueError:
        raise InvalidJSON("a part is not base64url") from None
    header, claims = (read_object(text, max_depth=MAX_JWT_DEPTH, max_values=1000) for text in texts)
    if "crit" in header:
        raise InvalidJSON("it demands an extension (crit), and none is known")
    return header, claims


def _check_depth(data: bytes, max_depth: int) -> None:
    depth = 0
    for found in _BRACKETS.finditer(data):
        first = data[found.start()]
        if first in b"[{":
            depth += 1
            if depth > max_depth:
                raise InvalidJSON(f"nested deeper than {max_depth}")
        elif first in b"]}":
            depth -= 1


def _whole_number(text: str) -> int:
    if len(text.lstrip("-")) > MAX_DIGITS:
        raise InvalidJSON(f"a number of more than {MAX_DIGITS} digits")
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise InvalidJSON("a number that is out of range")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidJSON(f"{name} is not JSON")


def _has_surrogate(value: Any) -> bool:
    if isinstance(value, str):
        return _SURROGATE.search(value) is not None
    if isinstance(value, dict):
        return any(_has_surrogate(key) or _has_surrogate(inner) for key, inner in value.items())
    return isinstance(value, list) and any(map(_has_surrogate, value))


def _repaired(value: Any) -> Any:
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_repaired(key): _repaired(inner) for key, inner in value.items()}
    return [_repaired(inner) for inner in value] if isinstance(value, list) else value
