# SPDX-License-Identifier: Apache-2.0
"""Secrets go, whatever they are written in; what merely speaks of them stays to the letter."""

from __future__ import annotations

import base64
import json
import random
import re
import string
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sammy_agent.diagnostics.redaction.redactor import REDACTED, Redactor

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


# What nobody told the redactor: it must know these by their looks.
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
    "PEM beside another secret": lambda s: json.dumps({"pem": "\n".join(pem(s)), "token": s}),
    "environment with blanks": lambda s: json.dumps(["DB_PASSWORD=correct horse " + s]),
    "environment with signs": lambda s: f"DB_PASSWORD=ab&c;{s}",
    "environment named differently": lambda s: f"MYSQL_PWD={s}",
    "a key by any other name": lambda s: f"DEPLOY_KEY={s}",
    "JSON thrice": lambda s: json.dumps({"a": json.dumps({"b": json.dumps({"token": s + '"x'})})}),
    "name and value": lambda s: json.dumps({"name": "DB_PASSWORD", "value": s}),
    "name and value on two lines": lambda s: json.dumps({"name": "DB_PASSWORD", "value": s}, indent=1),
    "name and value in YAML": lambda s: f"- name: API_TOKEN\n  value: {s}",
    "a block in YAML": lambda s: f"secret: |\n  {s}\nnext: x",
    "an argument and the next": lambda s: f"tool --token {s} --verbose",
    "an argument and the next in JSON": lambda s: json.dumps(["--password", s, "--verbose"], indent=1),
    "INI": lambda s: f"aws_secret_access_key = {s}",
    "XML": lambda s: f"<password>{s}</password>",
    "a sentence": lambda s: f"the password is {s}",
    ".netrc": lambda s: f"machine git.example login bob password {s}",
    "connection string": lambda s: f"Server=x;Password={s};Database=z",
    "API key header": lambda s: f"x-api-key: {s}",
    "curl's header": lambda s: f"curl -H 'X-Auth-Token: {s}' https://h/",
    "curl's user": lambda s: f"curl -u bob:{s} https://h/",
    "mysql": lambda s: f"mysql -u root -p{s} db",
    "sshpass": lambda s: f"sshpass -p {s} ssh h",
    "chpasswd": lambda s: f"echo 'root:{s}' | chpasswd",
    "docker login": lambda s: f"docker login -u x -p {s} registry.example",
    "docker's configuration": lambda s: json.dumps({"auth": base64.b64encode(f"user:{s}".encode()).decode()}),
    "database URL": lambda s: f"DATABASE=mysql://root:{s}@db:3306/x",
    "database URL with signs": lambda s: f"postgres://u:p/x@{s}@db/x",
    "signed URL": lambda s: f"https://h/x?X-Amz-Signature={s}",
    "shared access": lambda s: f"GET /x?sv=1&sig={s}&y=1",
    "URL in a URL": lambda s: f"redirect=https%3A%2F%2Fh%2F%3Faccess_token%3D{s}%26y",
    "Slack's webhook": lambda s: f"https://hooks.slack.com/services/T000/B000/{s}",
    "WireGuard": lambda s: f"PrivateKey = {base64.b64encode(s.encode()).decode()}",
    "Wi-Fi": lambda s: f"psk={s}",
    "environment in base64": lambda s: base64.b64encode(f"PASSWORD={s}".encode()).decode(),
    "JSON in base64": lambda s: base64.b64encode(json.dumps({"user": "x", "token": s}).encode()).decode(),
    "Vault": lambda s: f"hvs.{s}",
    "mail service": lambda s: f"SG.{s}.{s}",
    "GitLab runner": lambda s: f"glrt-{s}",
    "Docker Hub": lambda s: f"dckr_pat_{s}",
    "argon2": lambda s: f"$argon2id$v=19$m=65536,t=3,p=4${s}",
}


def traces(secret: str) -> list[str]:
    """Return pieces of the secret by which it would be recognised, plain and in base64."""
    repeated = base64.b64encode((secret * 12).encode()).decode()
    inner = base64.b64encode(f"user:{secret}".encode()).decode()[8:-4]
    encoded = [base64.b64encode(f"{head}{secret}".encode()).decode()[8:-8] for head in ("", "PASSWORD=", "x")]
    return [secret, secret[4:16], secret.upper()[:12], repeated[64:96], repeated[-70:-40], inner, *encoded]


@pytest.mark.parametrize("kind", UNKNOWN)
def test_planted_secrets_of_each_kind_are_gone_and_their_neighbours_stay(kind: str) -> None:
    chance = random.Random(kind)
    for _ in range(7):  # of each kind
        secret = made(chance)
        text = f"before\n{UNKNOWN[kind](secret)}\nafter\n"
        assert any(trace in text for trace in traces(secret)), "the planted secret can be seen at all"
        clean = Redactor().redact(text)
        assert not [trace for trace in traces(secret) if trace in clean], clean
        assert REDACTED in clean
        assert clean.endswith("\nafter\n")
        assert clean.startswith("before\n") or kind == "PEM whose head was cut off"


@pytest.mark.parametrize("line", SURVIVORS)
def test_lines_that_only_speak_of_secrets_survive(line: str) -> None:
    assert Redactor(["Xy7-known-secret-of-this-node"]).redact(line + "\n") == line + "\n"


def test_a_lone_begin_does_not_swallow_the_evidence_behind_it() -> None:
    lines = ["-----BEGIN PRIVATE KEY-----", *("short line " + str(number) for number in range(10))]
    assert Redactor().redact("\n".join(lines)) == "\n".join(lines)


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
    redactor = Redactor([secret])
    text = around[0] + write(secret) + around[1]
    assert redactor.contains_secret(text) or secret.startswith("-----")
    assert not redactor.contains_secret(redactor.redact(text).replace(REDACTED, " "))


@given(
    secret=st.text(st.sampled_from(CHARACTERS + "+/=._-"), min_size=40, max_size=200),
    cut=st.tuples(st.integers(0, 200), st.integers(0, 200)),
    write=st.sampled_from([lambda s: s, lambda s: base64.b64encode(s.encode()).decode(), lambda s: s.encode().hex()]),
)
def test_a_part_of_a_known_secret_is_found_too(secret: str, cut: tuple[int, int], write: Callable[[str], str]) -> None:
    part = write(secret)[min(cut) : max(cut)][2:-2]  # of base64 the ends may be of other alignments
    redactor = Redactor([secret])
    if len(part) >= 18:
        assert redactor.contains_secret(part)
    assert not redactor.contains_secret(redactor.redact(f"cut off: {part}\n"))


@pytest.mark.parametrize("secret", ["0000)000", "12]34", "none)abc12", "off}x1"])
def test_a_value_that_begins_like_an_absent_one_and_goes_on_is_a_secret(secret: str) -> None:
    assert secret not in Redactor().redact(f"DB_PASSWORD={secret}\n")


SIGNS = [sign for sign in map(chr, range(33, 127)) if sign not in "\"'\\,;&"]


@given(
    secret=st.text(st.sampled_from(SIGNS), min_size=8, max_size=30).filter(lambda s: any(map(str.isalnum, s))),
    write=st.sampled_from(
        [
            lambda s: f"DB_PASSWORD={s}",
            lambda s: json.dumps({"Env": [f"API_TOKEN={s}"]}),
            lambda s: json.dumps({"client_secret": s}),
            lambda s: json.dumps({"x": json.dumps({"client_secret": s})}),
            lambda s: f"tool --password={s} -v",
            lambda s: f'Environment="DB_PASSWORD={s}"',
        ]
    ),
)
def test_signs_in_a_secret_do_not_save_it(secret: str, write: Callable[[str], str]) -> None:
    clean = Redactor().redact(write(secret) + "\n")
    elsewhere = re.match(r"/(etc|var|run|root|home|usr|tmp|opt|srv|dev|proc|sys|mnt|lib|bin|sbin|boot|snap)\b", secret)
    assert secret not in clean or elsewhere or re.match(r"[$*<{(\[%]|[xX]{3}", secret)


@given(text=st.text(max_size=300), sizes=st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_pieces_are_scrubbed_as_the_whole_is(text: str, sizes: list[int]) -> None:
    text = "token=a1b2c3d4e5f6g7\n" + text
    stream, out, at = Redactor(["Xy7-known-secret"]).stream(), "", 0
    while at < len(text):
        for size in sizes:
            out += stream.feed(text[at : at + size])
            at += size
    assert out + stream.end() == Redactor(["Xy7-known-secret"]).redact(text)


@given(line=st.text(st.characters(blacklist_categories=["Cs"]), max_size=200))
def test_nothing_that_was_scrubbed_changes_when_it_is_scrubbed_again(line: str) -> None:
    once = Redactor().redact(line)
    assert Redactor().redact(once) == once


@given(
    secret=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=12, max_size=40),
    around=st.tuples(st.binary(max_size=9), st.binary(max_size=9)),
    safe=st.booleans(),
)
def test_a_known_secret_is_found_in_base64_at_any_place(secret: str, around: tuple[bytes, bytes], safe: bool) -> None:
    encode = base64.urlsafe_b64encode if safe else base64.b64encode
    text = encode(around[0] + secret.encode() + around[1]).decode()
    assert Redactor([secret]).contains_secret(text) or secret.startswith("-----")


@pytest.mark.parametrize("prefix", ["Nov 24 10:46:49.123456 node-7 tool[7]: ", "2026-11-24T10:46:49.123456789Z "])
@pytest.mark.parametrize("kind", [kind for kind in UNKNOWN if "head was cut off" not in kind])
def test_what_logs_put_before_each_line_hides_nothing(kind: str, prefix: str) -> None:
    secret = made(random.Random(kind))
    text = "".join(f"{prefix}{line}\n" for line in ["before", *UNKNOWN[kind](secret).splitlines(), "after"])
    clean = Redactor().redact(text)
    assert not [trace for trace in traces(secret) if trace in clean], clean
    assert clean.startswith(f"{prefix}before\n") and clean.endswith(f"{prefix}after\n")


@pytest.mark.parametrize("known", [True, False], ids=["known", "named"])
@pytest.mark.parametrize("prefix", ["", "Nov 24 10:46:49.123456 node-7 tool[7]: ", "    "])
def test_base64_of_several_lines_hides_nothing(prefix: str, known: bool) -> None:
    chance = random.Random(prefix)
    for _ in range(20):
        secret = made(chance, 40)
        config = f"user: bob\nsome: {'x' * chance.randrange(60)}\nvalue: {secret}\nlast: line of it\n"
        if not known:
            config = config.replace("value:", "password:")
        body = base64.encodebytes(config.encode()).decode().splitlines()
        text = "".join(f"{prefix}{line}\n" for line in ["before", *body, "after"])
        clean = Redactor([secret] if known else []).redact(text)
        assert clean == "".join(f"{prefix}{line}\n" for line in ["before", *[REDACTED] * len(body), "after"])


def test_base64_of_several_lines_that_holds_none_stays() -> None:
    body = base64.encodebytes(b"a text about nothing in particular, and long\n" * 5).decode()
    random_body = base64.encodebytes(random.Random(1).randbytes(300)).decode()
    assert Redactor(["Xy7-known-secret"]).redact(body + random_body) == body + random_body


# What costs a careless pattern the square of the line's length.
UNITS = (
    "curl ",
    "mysql ",
    "docker login ",
    "redis-cli ",
    "redis://a:",
    "-----BEGIN PRIVATE KEY-----",
    "a.",
    "\\",
    '"token":"',
)


@pytest.mark.parametrize("unit", UNITS)
def test_a_long_line_of_anything_takes_no_time_to_speak_of(unit: str) -> None:
    began = time.process_time()
    Redactor(["Xy7-known-secret"]).redact(unit * (200_000 // len(unit)) + "\n")
    assert time.process_time() - began < 20, "seconds, where the square of it would be minutes"
