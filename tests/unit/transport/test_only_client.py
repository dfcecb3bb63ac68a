# SPDX-License-Identifier: Apache-2.0
"""Nothing in sammy_agent builds an HTTP client of its own: a request beside the transport is one that can hang."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[3] / "sammy_agent"
# Modules that are clients; importing one, or a name of one, is having one.
CLIENTS = ("http.client", "urllib.request", "urllib3", "httpx", "aiohttp", "niquests", "pycurl", "tornado.httpclient",
           "tornado.simple_httpclient", "tornado.curl_httpclient", "tornado.websocket.websocket_connect", "websocket",
           "websockets", "websockets.client")  # fmt: skip
# What may be taken of requests: its errors and its types.
REQUESTS = frozenset({"exceptions", "RequestException", "ConnectionError", "HTTPError", "Timeout", "Response",
                      "ReadTimeout", "ConnectTimeout", "PreparedRequest", "Session", "models", "structures", "codes",
                      "TooManyRedirects", "JSONDecodeError", "auth", "__version__"})  # fmt: skip
# A value that is given to requests, and makes nothing.
VALUES = frozenset({"urllib3.Timeout", "urllib3.util.Timeout"})
# Calls that make a client whatever they are imported from.
MAKERS = frozenset({"Session", "session", "HTTPAdapter", "urlopen", "urlretrieve", "PyJWKClient", "HTTPConnection",
                    "HTTPSConnection", "PoolManager", "AsyncHTTPClient", "HTTPClient",
                    "websocket_connect"})  # fmt: skip
PROGRAMS = frozenset({"curl", "wget"})


def offences(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (f"imports {name.name}" for name in node.names if _client(name.name))
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from _from(node.module, [name.name for name in node.names])
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "requests":
            if node.attr not in REQUESTS:
                yield f"uses requests.{node.attr}"
        elif isinstance(node, ast.Call):
            yield from _call(node)
        elif isinstance(node, ast.List) and node.elts and isinstance(node.elts[0], ast.Constant):
            program = str(node.elts[0].value).rpartition("/")[2]
            if program in PROGRAMS:
                yield f"runs {program}"


def _client(module: str) -> bool:
    return any(module == name or module.startswith(name + ".") for name in CLIENTS)


def _from(module: str, names: list[str]) -> Iterator[str]:
    for name in names:
        if f"{module}.{name}" in VALUES:
            continue
        if _client(module) or _client(f"{module}.{name}"):
            yield f"imports {module}.{name}"
        elif module == "requests" and name not in REQUESTS:
            yield f"imports requests.{name}"
        elif module.startswith("requests.") and module not in {
            "requests.exceptions",
            "requests.structures",
            "requests.auth",
        }:
            yield f"imports {module}.{name}"


def _call(node: ast.Call) -> Iterator[str]:
    called = node.func
    name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
    owner = called.value if isinstance(called, ast.Attribute) else None
    if name not in MAKERS:
        return
    # transport.session("component") is the one way, whatever the variable is called; requests.session() is not.
    if name == "session" and not (isinstance(owner, ast.Name) and owner.id == "requests"):
        return
    # sqlite's and ACP's sessions have arguments or other owners; requests.Session() and a bare Session() have none.
    if name == "Session" and (node.args or node.keywords):
        return
    yield f"calls {name}()"


@pytest.mark.parametrize(
    "source",
    [
        "import requests\nrequests.get('x')",
        "import requests\ns = requests.Session()",
        "import requests\ns = requests.session()",
        "from requests import Session\ns = Session()",
        "from requests import get",
        "from requests.adapters import HTTPAdapter",
        "import urllib.request",
        "from urllib.request import urlopen",
        "from urllib import request",
        "import http.client",
        "from http import client",
        "import urllib3",
        "from jwt import PyJWKClient\nPyJWKClient('x')",
        "import jwt\njwt.PyJWKClient('x')",
        "from tornado.httpclient import AsyncHTTPClient",
        "from tornado import httpclient",
        "import httpx",
        "import subprocess\nsubprocess.run(['curl', 'x'])",
        "run(['/usr/bin/wget', 'x'])",
    ],
)
def test_the_detector_finds_each_kind(source: str) -> None:
    assert list(offences(source))


@pytest.mark.parametrize(
    "source",
    [
        "import requests\ntry:\n    pass\nexcept requests.ConnectionError:\n    pass",
        "session = transport.session('heartbeat')\nsession.post('x')",
        "from requests import RequestException",
        "from urllib3.util import Timeout",
        "def f(session: requests.Session) -> requests.Response: ...",
    ],
)
def test_the_detector_lets_the_right_way_pass(source: str) -> None:
    assert not list(offences(source))


def test_no_module_outside_the_transport_has_a_client() -> None:
    modules = [path for path in PACKAGE.rglob("*.py") if "transport" not in path.relative_to(PACKAGE).parts]
    assert len(modules) > 5
    found = {str(path.relative_to(PACKAGE)): list(offences(path.read_text())) for path in modules}
    assert {name: faults for name, faults in found.items() if faults} == {}


def test_within_the_transport_only_the_session_and_the_pools_do() -> None:
    found = {path.name for path in (PACKAGE / "transport").rglob("*.py") if list(offences(path.read_text()))}
    # errors and response: http.client's exceptions and its response, which is what is guarded
    assert found == {"control_plane_transport.py", "errors.py", "pool.py", "response.py"}
