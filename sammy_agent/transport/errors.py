# SPDX-License-Identifier: Apache-2.0
"""What the transport itself raises, and every failure of a request in words for an operator.

Requests fail with the exceptions of `requests`, as its users expect; TotalTimeout is one of them.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterator

import requests

from sammy_agent.base.errors import AgentError, Code


class TransportError(AgentError):
    """The transport is used or set wrongly."""

    code = Code.TRANSPORT


class TotalTimeout(requests.exceptions.ReadTimeout):
    """The whole request, body and replay included, took longer than it may."""


class ResponseTooLong(requests.exceptions.RequestException):
    """The answer's body is larger than any this agent asks for."""


class MalformedResponse(http.client.HTTPException):
    """The answer breaks HTTP's rules in a way that must not be guessed at; urllib3 makes its ProtocolError of it."""


class TransportClosed(requests.exceptions.ConnectionError):
    """The transport was closed; nothing is sent any more."""


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error and all it was made from: causes, contexts, `reason` and nested arguments, each once."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        this = waiting.pop(0)
        if this is None or id(this) in seen:
            continue
        seen.add(id(this))
        yield this
        nested = [part for part in (getattr(this, "reason", None), *this.args) if isinstance(part, BaseException)]
        waiting += [*nested, this.__cause__, this.__context__]


def certificate_problem(error: BaseException) -> str | None:
    """Return why the server's certificate was refused, or None when that is not what failed.

    A wrong clock is named: first boots and resumed machines have one, and the remedy is not a new certificate.
    """
    for part in chain(error):
        if isinstance(part, ssl.SSLCertVerificationError):
            text = getattr(part, "verify_message", "") or str(part)  # urllib3's own comparison sets neither
            if getattr(part, "verify_code", 0) in (9, 10):  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
                return f"{text}: either the certificate or this machine's clock is wrong (see `timedatectl`)"
            return text
        if type(part).__name__ == "CertificateError":  # urllib3's, for a name that does not match
            return str(part)
    return None


def describe(error: BaseException) -> str:
    """Return one plain sentence on why a request failed, and why it was replayed if it was; for journals and status."""
    first = getattr(error, "first_failure", None)
    text = _describe_one(error)
    return text if first is None else f"{text} (on the replay; the first attempt: {_describe_one(first)})"


def _describe_one(error: BaseException) -> str:  # noqa: PLR0911  (a table in order)
    certificate = certificate_problem(error)
    if certificate:
        return f"the control plane's certificate was refused: {certificate}"
    if isinstance(error, (TotalTimeout, ResponseTooLong)):
        return str(error)
    for part in chain(error):
        if isinstance(part, MalformedResponse):
            return f"what answers does not keep to HTTP: {part}"
        if isinstance(part, socket.gaierror):
            return f"the name could not be looked up: {part.strerror}"
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return "no connection in time: nothing answered at the address"
    if isinstance(error, requests.exceptions.ReadTimeout):
        return "connected, but no answer in time"
    for part in chain(error):
        if (
            isinstance(part, OSError)
            and part.errno
            and part.strerror
            and not isinstance(part, requests.RequestException)
        ):
            return part.strerror[0].lower() + part.strerror[1:]
        if isinstance(part, ConnectionError) and str(part):  # http.client's RemoteDisconnected has no errno
            return str(part)[0].lower() + str(part)[1:]
    return str(error) or type(error).__name__
