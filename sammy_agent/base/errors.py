# SPDX-License-Identifier: Apache-2.0
"""What can go wrong in the agent and its control plane, in words an operator can act on; `code` is to search for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cause:
    """Why something does not work: a stable code to search for, a plain sentence, the next step."""

    code: str
    text: str
    next_step: str = ""

    def __str__(self) -> str:
        return f"{self.text}. {self.next_step}" if self.next_step else self.text


class AgentError(Exception):
    """Base of all errors of sammy_agent: a plain sentence, and the next step where there is one."""

    code = "agent"

    def __init__(self, message: str, next_step: str = "") -> None:
        self.message = message
        self.next_step = next_step
        super().__init__(f"{message}. {next_step}" if next_step else message)


class ConfigInvalid(AgentError):
    """The agent's configuration file is missing something or is no configuration."""

    code = "agent-config-invalid"


class TokenUnusable(AgentError):
    """What should be a token is none, or belongs to another node."""

    code = "token-unusable"


class StoreUnusable(AgentError):
    """A database cannot be opened or was written by a later version."""

    code = "store-unusable"


class ControlPlaneError(AgentError):
    """The embedded control plane cannot do what was asked."""

    code = "control-plane"
