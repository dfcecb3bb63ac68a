# SPDX-License-Identifier: Apache-2.0
"""`sammy firewall refresh`: Cloudflare's networks fetched anew, believed only when they look like such a list.

A list that came back empty, as an HTML page or cut off has locked whole fleets out, so whatever is odd changes nothing
and is told. Fetching and evaluating are apart (`fetch`, `evaluate`); the last good list and what was tried are on disk.
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
from cc_sammy.firewall.model import networks as ranges

CONNECT_SECONDS, READ_SECONDS, WHOLE_SECONDS = 10.0, 10.0, 30.0
LARGEST = 64 * 1024  # bytes; the real answer has 600
FEWEST = {4: 8, 6: 4}  # networks; there have been 15 and 7 since 2021
WIDEST = {4: 8, 6: 16}  # prefix length
AGREE_SECONDS = 3600.0  # a list that shrinks by more than half must be seen again this much later


@dataclass
class State:
    """What is kept on disk. Times are seconds since the epoch; `doubted` is a list that waits for a second fetch."""

    networks: tuple[str, ...] = ()
    etag: str = ""
    url: str = ""
    last_attempt: float = 0.0
    last_success: float = 0.0
    last_error: str = ""
    doubted: tuple[str, ...] = ()
    doubted_at: float = 0.0


@dataclass(frozen=True)
class Answer:
    """What the server said; `unchanged` is its 304."""

    body: bytes = b""
    etag: str = ""
    unchanged: bool = False


class Refused(SammyError):
    """A list was fetched and not believed, or could not be fetched; nothing was changed."""

    code = BootCode.RANGES_REFUSED


def read_list(body: bytes) -> tuple[str, ...]:
    """Return the networks of an answer: Cloudflare's JSON, or one network a line.

    :raises Refused: it is no list of networks that could be Cloudflare's; says why.
    """
    try:
        text = body.decode("ascii")
    except UnicodeDecodeError:
        raise Refused("the list is not plain text") from None
    words = _from_json(text) if text.lstrip().startswith("{") else text.split("\n")
    words = [word.strip() for word in words if word.strip()]
    counts = {4: 0, 6: 0}
    for word in words:
        version = _believable(word)
        counts[version] += 1
    if len(set(words)) != len(words):
        raise Refused("the list names a network twice")
    for version, fewest in FEWEST.items():
        if counts[version] < fewest:
            raise Refused(f"the list has {counts[version]} IPv{version} networks, fewer than {fewest}")
    return tuple(words)


def _from_json(text: str) -> list[str]:
    try:
        document = json.loads(text)
        if document["success"] is not True:
            raise Refused("the list's own success is not true")
        found = [*document["result"]["ipv4_cidrs"], *document["result"]["ipv6_cidrs"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Refused("the list is not Cloudflare's JSON, or only a part of it") from None
    if not all(isinstance(word, str) for word in found):
        raise Refused("the list holds something else than networks")
    return found


def _believable(word: str) -> int:
    """Return the family of one network. Refused when it is none, or not a public one of a sensible width."""
    try:
        network = ipaddress.ip_network(word)
    except ValueError:
        raise Refused(f"the list holds {word[:60]!r}, which is not a network") from None
    if "/" not in word:
        raise Refused(f"the list holds {word!r} without a prefix length")
    if network.prefixlen < WIDEST[network.version]:
        raise Refused(f"the list holds {word}, wider than /{WIDEST[network.version]}")
    if not network.is_global or network.is_multicast:
        raise Refused(f"the list holds {word}, which is not public")
    return network.version


def evaluate(state: State, known: Sequence[str], answer: Answer, now: float) -> State:
    """Return the state after an answer; `networks` differ from before only when the answer is believed.

    :param known: the networks in force: what the state holds, or the bundled list.
    :raises Refused: the answer is not believed.
    """
    if answer.unchanged:
        return State(**{**asdict(state), "last_success": now, "last_error": "", "doubted": (), "doubted_at": 0.0})
    fetched = read_list(answer.body)
    if _shrinks(known, fetched):
        agreed = set(fetched) == set(state.doubted) and now - state.doubted_at >= AGREE_SECONDS
        if not agreed:
            return _doubt(state, fetched, now)
    return State(fetched, answer.etag, state.url, state.last_attempt, now)


def _doubt(state: State, fetched: tuple[str, ...], now: float) -> State:
    seen = set(fetched) == set(state.doubted) and 0 < state.doubted_at <= now
    reason = "the list lost more than half of what it held: believed when it is the same an hour from now"
    doubts = {"doubted": fetched, "doubted_at": state.doubted_at if seen else now, "last_error": reason}
    return State(**{**asdict(state), **doubts})


def _shrinks(known: Sequence[str], fetched: Sequence[str]) -> bool:
    """Tell whether more than half of the networks, or of a family's addresses, would be lost."""
    held, new = ranges.parse(known, "known"), ranges.parse(fetched, "fetched")
    pairs: tuple[tuple[Sequence[ranges.Network4 | ranges.Network6], Sequence[ranges.Network4 | ranges.Network6]], ...]
    pairs = ((held[0], new[0]), (held[1], new[1]))
    return any(len(after) * 2 < len(before) or _addresses(after) * 2 < _addresses(before) for before, after in pairs)


def _addresses(networks: Sequence[ranges.Network4 | ranges.Network6]) -> int:
    return sum(network.num_addresses for network in networks)


def fetch(url: str, etag: str) -> Answer:
    """Ask the server once, on a connection of its own.

    :raises Refused: no answer in 30 s, or not the answer to be expected.
    """
    import requests

    if not url.startswith("https://"):
        raise Refused(f"{url} is not https", "Set firewall.ranges_url to an https address")
    headers = {"User-Agent": "sammy", "Connection": "close", **({"If-None-Match": etag} if etag else {})}
    deadline = time.monotonic() + WHOLE_SECONDS
    timeouts = (CONNECT_SECONDS, READ_SECONDS)
    try:
        with requests.get(url, headers=headers, timeout=timeouts, stream=True, allow_redirects=False) as response:
            if response.status_code == 304 and etag:
                return Answer(unchanged=True)
            if response.status_code != 200:
                raise Refused(f"{url} answered {response.status_code}")
            body = b""
            # byte by byte: one that comes now and then must not outlast the deadline unseen
            for part in response.iter_content(1):
                body += part
                if len(body) > LARGEST:
                    raise Refused(f"{url} sent more than {LARGEST // 1024} KiB")
                if time.monotonic() > deadline:
                    raise Refused(f"{url} did not end within {WHOLE_SECONDS:.0f} s")
            length = response.headers.get("Content-Length", "")
            if length.isdigit() and not response.headers.get("Content-Encoding") and int(length) != len(body):
                raise Refused(f"{url} sent {len(body)} of {length} bytes")
            return Answer(body, response.headers.get("ETag", ""))
    except requests.RequestException as error:
        raise Refused(f"{url} could not be fetched: {error}") from error


def load() -> State:
    """Return what is on disk; an empty state when there is none or it is damaged."""
    try:
        values: Mapping[str, Any] = json.loads(files.read_text(ranges.FETCHED) or "")
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        state = State(**fields)
        ranges.parse((*state.networks, *state.doubted), ranges.FETCHED)
        return state
    except (ValueError, TypeError, AttributeError, SammyError):
        return State()


def save(state: State) -> None:
    """Keep the state.

    :raises Refused: it could not be written; the list of before stays.
    """
    try:
        files.write_text(ranges.FETCHED, json.dumps(asdict(state), indent=1) + "\n", mode=0o600, sync=True)
    except OSError as error:
        raise Refused(f"{ranges.FETCHED} could not be written: {error.strerror}", "Make room on the disk") from error


def refresh(url: str | None, now: float) -> tuple[State, bool]:
    """Fetch once and keep what came of it; return the state and whether the networks are others than before.

    :raises Refused: nothing was changed but `last_attempt` and `last_error`.
    """
    state, address = load(), url or download_urls.CLOUDFLARE_RANGES
    if address != state.url:
        state.url, state.etag = address, ""  # an ETag is its server's own
    known = ranges.known()
    state.last_attempt = now
    save(state)  # before the fetch: one that is killed was an attempt too
    try:
        after = evaluate(state, known, fetch(address, state.etag if state.networks else ""), now)
    except Refused as error:
        state.last_error = str(error)
        save(state)
        raise
    save(after)
    if after.last_error:
        raise Refused(after.last_error)
    return after, set(after.networks or known) != set(known)
