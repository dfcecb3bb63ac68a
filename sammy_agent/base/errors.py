# SPDX-License-Identifier: Apache-2.0
"""What can go wrong in the agent and its control plane: the codes, and the errors that several rooms raise.

A room's own errors stand in that room; every one is an AgentError and carries a Problem.
"""

from __future__ import annotations

from typing import ClassVar

from cc_sammy.contract.problem import Problem, ProblemCode, ProblemError

__all__ = [
    "AgentError",
    "Code",
    "ConfigInvalid",
    "ControlPlaneError",
    "Problem",
    "StoreUnusable",
    "TokenUnusable",
]


class Code(ProblemCode):
    """The codes of sammy_agent."""

    AGENT = "agent", "Another failure of the agent; the text says which."
    AGENT_CONFIG_INVALID = "agent-config-invalid", "The agent's configuration file is incomplete or not valid."
    CONFIG_UNREADABLE = "config-unreadable", "The agent's configuration file cannot be read."
    SERVICE_NOT_STARTED = "service-not-started", "A service of the agent could not be started; it is retried."
    STORE_UNUSABLE = "store-unusable", "A database cannot be opened, or a later version of sammy wrote it."
    STATE_UNREADABLE = "state-unreadable", "A small file of the agent's state cannot be read."
    STATE_DAMAGED = "state-damaged", "A small file of the agent's state is corrupt."
    STATE_UNSAVED = "state-unsaved", "A small file of the agent's state cannot be written."
    ASKED_WRONG = "asked-wrong", "An argument of `sammy events` is not valid."
    TIME_INVALID = "time-invalid", "A time given on the command line is not valid."
    # the node's credentials
    NO_TOKEN = "no-token", "The node has no token, so it cannot call the control plane."
    TOKEN_UNREADABLE = "token-unreadable", "The file of the node's token cannot be read."
    TOKEN_UNUSABLE = "token-unusable", "A token is not valid, or it belongs to another node."
    TOKEN_UNSAVED = "token-unsaved", "The refreshed token could not be written; it is kept in memory."
    WORKSPACE_UNKNOWN = "workspace-unknown", "There is no token for this workspace."
    NODE_KEY = "node-key", "The node's TLS key or certificate request could not be made."
    # requests to the control plane
    CLOCK_OR_CERTIFICATE = "clock-or-certificate", "The control plane's certificate is not valid at this clock's time."
    CERTIFICATE = "certificate", "The control plane's certificate was refused."
    NO_ANSWER = "no-answer", "The control plane did not answer in time."
    UNREACHABLE = "unreachable", "No connection to the control plane."
    TOKEN_EXPIRED = "token-expired", "The node's token has expired."
    TOKEN_REFUSED = "token-refused", "The control plane does not accept the token."
    NOT_A_CONTROL_PLANE = "not-a-control-plane", "Something else answered: a proxy, a login page, a wrong URL."
    NODE_UNKNOWN = "node-unknown", "The control plane does not know this node."
    SERVER_ERROR = "server-error", "The control plane answered with a status of 500 or above."
    CALL_REFUSED = "call-refused", "The control plane refused a request for another reason."
    TRANSPORT = "transport", "The transport's settings are not valid, or it was used wrongly."
    JSON_INVALID = "json-invalid", "A text that should be JSON is not, or is larger or deeper than what is read."
    # what reporters and workspaces hand in
    ACTIVITY_INVALID = "activity-invalid", "A session's activity is not valid."
    MESSAGE_INVALID = "message-invalid", "A workspace's message is not valid."
    BOOT_LOG_INVALID = "boot-log-invalid", "An entry of a boot log is not valid."
    OUTBOX_UNAVAILABLE = "outbox-unavailable", "The outbox cannot keep rows: the disk is full or broken."
    READY_UNSAVED = "ready-unsaved", "The acknowledgement of /ready could not be written."
    FIREWALL_APPLY = "firewall-apply", "The firewall could not be applied after /ready was acknowledged."
    # the management server
    NO_CERTIFICATE = "no-certificate", "The node has no TLS certificate yet, so its server does not serve."
    CERTIFICATE_GONE = "certificate-gone", "The files of the node's TLS certificate are gone; it still serves."
    CERTIFICATE_UNUSABLE = "certificate-unusable", "The node's TLS certificate and key cannot be used."
    PORT_TAKEN = "port-taken", "Another program listens on the agent's port."
    PORT_UNUSABLE = "port-unusable", "The agent's port cannot be used."
    SERVER_INCOMPLETE = "server-incomplete", "A package that the management server needs is missing."
    SERVER_BROKEN = "server-broken", "The management server cannot be started."
    MANAGEMENT_REFUSED = "management-refused", "A request to the management server is not authorised."
    MANAGEMENT_NO_KEY = "management-no-key", "No known key of the control plane signed a management token."
    KEYS_UNAVAILABLE = "keys-unavailable", "The control plane's public keys cannot be fetched."
    # diagnostics
    LOGS_QUERY_INVALID = "logs-query-invalid", "A query for logs is not valid."
    LOGS_POSITION_INVALID = "logs-position-invalid", "A position in a log is not one of that source."
    DEBUG_PACKAGE_FAILED = "debug-package-failed", "The debug package could not be made."
    DEBUG_PACKAGE_BUSY = "debug-package-busy", "Another debug package is being made."
    DEBUG_PACKAGE_LEAK = "debug-package-leak", "A secret was found in the finished debug package, so it was removed."
    # the embedded control plane
    CONTROL_PLANE = "control-plane", "The embedded control plane cannot do what was asked."
    BODY_INVALID = "body-invalid", "The body of a request breaks the wire's rules."
    CONTENT_CONFLICT = "content-conflict", "Another content was received under the same id."
    SESSION_MISMATCH = "session-mismatch", "The workspace is linked to another session."
    CSR_REFUSED = "csr-refused", "A certificate request was refused."
    NODE_UNREACHABLE = "node-unreachable", "A node's management server cannot be reached."
    NODE_REFUSED = "node-refused", "A node's management server refused a request."


class AgentError(ProblemError):
    """Base of all errors of sammy_agent."""

    code: ClassVar[ProblemCode] = Code.AGENT


class ConfigInvalid(AgentError):
    """The agent's configuration file is missing something or is not a configuration."""

    code = Code.AGENT_CONFIG_INVALID


class TokenUnusable(AgentError):
    """A text is not a token, or the token belongs to another node."""

    code = Code.TOKEN_UNUSABLE


class StoreUnusable(AgentError):
    """A database cannot be opened or was written by a later version."""

    code = Code.STORE_UNUSABLE


class ControlPlaneError(AgentError):
    """The embedded control plane cannot do what was asked."""

    code = Code.CONTROL_PLANE
