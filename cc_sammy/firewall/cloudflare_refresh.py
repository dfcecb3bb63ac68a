# SPDX-License-Identifier: Apache-2.0
"""`sammy firewall refresh`: fetches Cloudflare's networks, and accepts only what looks like such a list.

A list that came back empty, as an HTML page or cut off has locked whole fleets out, so an odd one changes nothing and
is reported. `fetch` does the I/O and `evaluate` decides; the last good list and the last attempt are on disk.
"""

from __future__ import annotations

import ipaddress
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cc_sammy import download_urls
from cc_sammy.common import files
from cc_sammy.errors import BootCode, SammyError
from cc_sammy.firewall.model import networks

CONNECT_SECONDS, READ_SECONDS, WHOLE_SECONDS = 10.0, 10.0, 30.0
MAX_BYTES = 64 * 1024  # the real answer has 600
MIN_NETWORKS = {4: 8, 6: 4}  # by family; there have been 15 and 7 since 2021
MIN_PREFIX_LENGTH = {4: 8, 6: 16}
CONFIRMATION_SECONDS = 3600.0  # a list that shrinks by more than half must be fetched again this much later

Family = Sequence[networks.Network4] | Sequence[networks.Network6]


@dataclass
class RangesState:
    """What is stored on disk; times are seconds since the epoch.

    `pending_confirmation` is a list that has shrunk and must be fetched a second time before it is accepted.
    """

    networks: tuple[str, ...] = ()
    etag: str = ""
    url: str = ""
    last_attempt: float = 0.0
    last_success: float = 0.0
    last_error: str = ""
    pending_confirmation: tuple[str, ...] = ()
    pending_since: float = 0.0


@dataclass(frozen=True)
class FetchResult:
    """What the server said; `unchanged` is its 304."""

    body: bytes = b""
    etag: str = ""
    unchanged: bool = False


class RangesRefused(SammyError):
    """A list could not be fetched, or was not accepted; nothing was changed."""

    code = BootCode.RANGES_REFUSED


def parse_list(body: bytes) -> tuple[str, ...]:
    """Return the networks of an answer: Cloudflare's JSON, or one network a line.

    :raises RangesRefused: it is no list of networks that could be Cloudflare's; says why.
    """
    try:
        text = body.decode("ascii")
    except UnicodeDecodeError:
        raise RangesRefused("the list is not plain text") from None
    words = _from_json(text) if text.lstrip().startswith("{") else text.split("\n")
    words = [word.strip() for word in words if word.strip()]
    counts = {4: 0, 6: 0}
    for word in words:
        version = _validate_network(word)
        counts[version] += 1
    if len(set(words)) != len(words):
        raise RangesRefused("the list names a network twice")
    for version, fewest in MIN_NETWORKS.items():
        if counts[version] < fewest:
            raise RangesRefused(f"the list has {counts[version]} IPv{version} networks, fewer than {fewest}")
    return tuple(words)


def _from_json(text: str) -> list[str]:
    try:
        document = json.loads(text)
        if document["success"] is not True:
            raise RangesRefused("the list's own success is not true")
        found = [*document["result"]["ipv4_cidrs"], *document["result"]["ipv6_cidrs"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise RangesRefused("the list is not Cloudflare's JSON, or only a part of it") from None
    if not all(isinstance(word, str) for word in found):
        raise RangesRefused("the list contains values that are not strings")
    return found


def _validate_network(word: str) -> int:
    """Return the family of one network. RangesRefused when it is none, or not a public one of a sensible width."""
    try:
        network = ipaddress.ip_network(word)
    except ValueError:
        raise RangesRefused(f"the list holds {word[:60]!r}, which is not a network") from None
    if "/" not in word:
        raise RangesRefused(f"the list holds {word!r} without a prefix length")
    if network.prefixlen < MIN_PREFIX_LENGTH[network.version]:
        raise RangesRefused(f"the list holds {word}, wider than /{MIN_PREFIX_LENGTH[network.version]}")
    if not network.is_global or network.is_multicast:
        raise RangesRefused(f"the list holds {word}, which is not public")
    return network.version


def evaluate(state: RangesState, known: Sequence[str], answer: FetchResult, now: float) -> RangesState:
    """Return the state after an answer; `networks` differ from before only when the answer is accepted.

    :param known: the networks in force: what the state holds, or the bundled list.
    :raises RangesRefused: the answer is not accepted.
    """
    if answer.unchanged:
        return RangesState(
            **{**asdict(state), "last_success": now, "last_error": "", "pending_confirmation": (), "pending_since": 0.0}
        )
    fetched = parse_list(answer.body)
    if _shrinks(known, fetched):
        agreed = set(fetched) == set(state.pending_confirmation) and now - state.pending_since >= CONFIRMATION_SECONDS
        if not agreed:
            return _await_confirmation(state, fetched, now)
    return RangesState(fetched, answer.etag, state.url, state.last_attempt, now)


def _await_confirmation(state: RangesState, fetched: tuple[str, ...], now: float) -> RangesState:
    seen = set(fetched) == set(state.pending_confirmation) and 0 < state.pending_since <= now
    reason = "the list lost more than half of its networks: it is accepted if a fetch an hour from now returns the same"
    pending = {
        "pending_confirmation": fetched,
        "pending_since": state.pending_since if seen else now,
        "last_error": reason,
    }
    return RangesState(**{**asdict(state), **pending})


def _shrinks(known: Sequence[str], fetched: Sequence[str]) -> bool:
    """Tell whether more than half of the networks, or of a family's addresses, would be lost."""
    held, new = networks.parse(known, "known"), networks.parse(fetched, "fetched")
    pairs: tuple[tuple[Family, Family], ...] = ((held[0], new[0]), (held[1], new[1]))
    return any(len(after) * 2 < len(before) or _addresses(after) * 2 < _addresses(before) for before, after in pairs)


def _addresses(held: Family) -> int:
    return sum(network.num_addresses for network in held)


def fetch(url: str, etag: str) -> FetchResult:
    """Ask the server once, on a connection of its own.

    :raises RangesRefused: no answer in 30 s, or not the answer to be expected.
    """
    import requests

    if not url.startswith("https://"):
        raise RangesRefused(f"{url} is not https", "Set firewall.ranges_url to an https address")
    headers = {"User-Agent": "sammy", "Connection": "close", **({"If-None-Match": etag} if etag else {})}
    deadline = time.monotonic() + WHOLE_SECONDS
    timeouts = (CONNECT_SECONDS, READ_SECONDS)
    try:
        with requests.get(url, headers=headers, timeout=timeouts, stream=True, allow_redirects=False) as response:
            if response.status_code == 304 and etag:
                return FetchResult(unchanged=True)
            if response.status_code != 200:
                raise RangesRefused(f"{url} answered {response.status_code}")
            body = b""
            # byte by byte: one that comes now and then must not outlast the deadline unseen
            for part in response.iter_content(1):
                body += part
                if len(body) > MAX_BYTES:
                    raise RangesRefused(f"{url} sent more than {MAX_BYTES // 1024} KiB")
                if time.monotonic() > deadline:
                    raise RangesRefused(f"{url} did not end within {WHOLE_SECONDS:.0f} s")
            length = response.headers.get("Content-Length", "")
            if length.isdigit() and not response.headers.get("Content-Encoding") and int(length) != len(body):
                raise RangesRefused(f"{url} sent {len(body)} of {length} bytes")
            return FetchResult(body, response.headers.get("ETag", ""))
    except requests.RequestException as error:
        raise RangesRefused(f"{url} could not be fetched: {error}") from error


def load() -> RangesState:
    """Return what is on disk; an empty state when there is none or it is damaged."""
    try:
        values: Mapping[str, Any] = json.loads(files.read_text(networks.FETCHED) or "")
        fields: dict[str, Any] = {
            name: tuple(values[name]) if isinstance(values[name], list) else values[name]
            for name in RangesState.__dataclass_fields__
            if name in values  # a file of another version has other fields too
        }
        state = RangesState(**fields)
        networks.parse((*state.networks, *state.pending_confirmation), networks.FETCHED)
        return state
    except (ValueError, TypeError, AttributeError, SammyError):
        return RangesState()


def save(state: RangesState) -> None:
    """Store the state.

    :raises RangesRefused: it could not be written; the previous list stays.
    """
    try:
        files.write_text(networks.FETCHED, json.dumps(asdict(state), indent=1) + "\n", mode=0o600, sync=True)
    except OSError as error:
        raise RangesRefused(
            f"{networks.FETCHED} could not be written: {error.strerror}", "Make room on the disk"
        ) from error


def refresh(url: str | None, now: float) -> tuple[RangesState, bool]:
    """Fetch once and keep what came of it; return the state and whether the networks are others than before.

    :raises RangesRefused: nothing was changed but `last_attempt` and `last_error`.
    """
    state, address = load(), url or download_urls.CLOUDFLARE_RANGES
    if address != state.url:
        state.url, state.etag = address, ""  # an ETag is its server's own
    known = networks.current()
    state.last_attempt = now
    save(state)  # before the fetch: one that is killed was an attempt too
    try:
        after = evaluate(state, known, fetch(address, state.etag if state.networks else ""), now)
    except RangesRefused as error:
        state.last_error = str(error)
        save(state)
        raise
    save(after)
    if after.last_error:
        raise RangesRefused(after.last_error)
    return after, set(after.networks or known) != set(known)
