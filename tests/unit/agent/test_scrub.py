# SPDX-License-Identifier: Apache-2.0
"""Secrets go, whatever they are written in; what merely speaks of them stays to the letter."""

from __future__ import annotations

import base64
import json
import random
import string
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sammy_agent.debug_package.scrub import GONE, Scrubber

SURVIVORS = Path(__file__).with_name("survive.txt").read_text().splitlines()
CHARACTERS = string.ascii_letters + string.digits


def made(chance: random.Random, length: int = 24, alphabet: str = CHARACTERS) -> str:
    return chance.choice(string.ascii_lowercase) + chance.choice(string.digits) + "".join(
        chance.choice(alphabet) for _ in range(length - 2)
    )  # fmt: skip


def jwt(secret: str) -> str:
    head = base64.urlsafe_b64encode(b'{"alg":"RS256"}').decode().rstrip("=")
    return f"{head}.{secret}.{secret}"


def pem(secret: str) -> list[str]:
    body = base64.b64encode((secret * 12).encode()).decode()
    lines = [body[at : at + 64] for at in range(0, len(body), 64)]
    return ["-----BEGIN PRIVATE KEY-----", *lines, "-----END PRIVATE KEY-----"]


# What nobody told the scrubber: it must know these by their looks.
UNKNOWN: dict[str, Callable[[str], str]] = {
    "environment": lambda s: f"DATABASE_PASSWORD={s}",
    "environment of a unit": lambda s: f'Environment="API_TOKEN={s}" "HOME=/root"',
    "docker inspect": lambda s: json.dumps({"Env": [f"GITHUB_TOKEN={s}", "PATH=/bin"]}),
    "arguments": lambda s: f"ps: /usr/bin/tool --password={s} --verbose",
    "JSON": lambda s: json.dumps({"clientSecret": s, "kind": "x"}),
    "JSON in a text": lambda s: json.dumps({"MESSAGE": json.dumps({"access_token": s})}),
    "YAML": lambda s: f"  db_password: {s}",
    "quoted YAML": lambda s: f'  secret: "{s}"',
    "a token in YAML": lambda s: f"  token: {s}",
    "bearer": lambda s: f"> Authorization: Bearer {s}",
    "bearer in a message": lambda s: f"sent Bearer {s} to the server",
    "basic": lambda s: f"Authorization: Basic {base64.b64encode(f'user:{s}'.encode()).decode()}",
    "header in JSON": lambda s: json.dumps({"headers": {"Authorization": f"token {s}"}}),
    "cookie": lambda s: f"Set-Cookie: session={s}; Path=/; HttpOnly",
    "user and password in a URL": lambda s: f"cloning https://user:{s}@git.example/repo",
    "token as a URL's user": lambda s: f"https://{s}@git.example/repo.git",
    "query": lambda s: f"GET /hook?id=4&access_token={s}&page=2 200",
    "JWT": lambda s: f"callback {jwt(s)} taken",
    "GitHub": lambda s: f"using ghp_{s} for git",
    "GitLab": lambda s: f"using glpat-{s} for git",
    "npm": lambda s: f"//registry.example/:_authToken=npm_{s}",
    "Slack": lambda s: f"hook xoxb-{s}",
    "AI key": lambda s: f"model key sk-ant-{s} in use",
    "payment key": lambda s: f"sk_live_{s}",
    "AWS id": lambda s: f"id AKIA{(s.upper() + 'A' * 16)[:16]}",
    "password hash": lambda s: f"workspace:$6$saltsalt${s}{s}:19000:0:99999:7:::",
    "PEM": lambda s: "\n".join(pem(s)),
    "PEM in a journal": lambda s: "\n".join(f"Nov 24 10:46:49 node-7 tool[7]: {line}" for line in pem(s)),
    "PEM in JSON": lambda s: json.dumps({"content": "\n".join(pem(s))}),
    "PEM whose head was cut off": lambda s: "\n".join(pem(s)[2:]),
}


def traces(secret: str) -> list[str]:
    """Return pieces of the secret by which it would be recognised, plain and in base64."""
    repeated = base64.b64encode((secret * 12).encode()).decode()
    inner = base64.b64encode(f"user:{secret}".encode()).decode()[8:-4]
    return [secret, secret[4:16], secret.upper()[:12], repeated[64:96], repeated[-70:-40], inner]


@pytest.mark.parametrize("kind", UNKNOWN)
def test_planted_secrets_of_each_kind_are_gone_and_their_neighbours_stay(kind: str) -> None:
    chance = random.Random(kind)
    for _ in range(7):  # 30 kinds, 210 secrets
        secret = made(chance)
        text = f"before\n{UNKNOWN[kind](secret)}\nafter\n"
        assert any(trace in text for trace in traces(secret)), "the planted secret can be seen at all"
        clean = Scrubber().scrub(text)
        assert not [trace for trace in traces(secret) if trace in clean], clean
        assert GONE in clean
        assert clean.endswith("\nafter\n")
        assert clean.startswith("before\n") or kind == "PEM whose head was cut off"


@pytest.mark.parametrize("line", SURVIVORS)
def test_lines_that_only_speak_of_secrets_survive(line: str) -> None:
    assert Scrubber(["Xy7-known-secret-of-this-node"]).scrub(line + "\n") == line + "\n"


def test_a_lone_begin_does_not_swallow_the_evidence_behind_it() -> None:
    lines = ["-----BEGIN PRIVATE KEY-----", *("short line " + str(number) for number in range(10))]
    assert Scrubber().scrub("\n".join(lines)) == "\n".join(lines)


@given(
    secret=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=60),
    around=st.tuples(st.text(max_size=20), st.text(max_size=20)),
    write=st.sampled_from(
        [
            lambda s: s,
            lambda s: quote(s, safe=""),
            lambda s: json.dumps({"x": s}),
            lambda s: json.dumps(json.dumps({"x": s})) if "\\" not in s and '"' not in s else s,
        ]
    ),
)
def test_a_known_secret_is_found_in_each_writing(
    secret: str, around: tuple[str, str], write: Callable[[str], str]
) -> None:
    scrubber = Scrubber([secret])
    text = around[0] + write(secret) + around[1]
    assert scrubber.finds(text) or secret.startswith("-----")
    assert not scrubber.finds(scrubber.scrub(text).replace(GONE, " "))


@given(
    secret=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=12, max_size=40),
    around=st.tuples(st.binary(max_size=9), st.binary(max_size=9)),
    safe=st.booleans(),
)
def test_a_known_secret_is_found_in_base64_at_any_place(secret: str, around: tuple[bytes, bytes], safe: bool) -> None:
    encode = base64.urlsafe_b64encode if safe else base64.b64encode
    text = encode(around[0] + secret.encode() + around[1]).decode()
    assert Scrubber([secret]).finds(text) or secret.startswith("-----")
