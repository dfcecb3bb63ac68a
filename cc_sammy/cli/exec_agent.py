# SPDX-License-Identifier: Apache-2.0
"""Verbs that are the agent's own, where an operator looks for them first: `sammy` becomes `sammy-agent`."""

from __future__ import annotations

import os
from collections.abc import Sequence

from cc_sammy.errors import SammyError

AGENT = "sammy-agent"


def exec_agent(words: Sequence[str]) -> int:
    """Run the agent's verb in this process's place; never a secret among the words.

    :raises SammyError: the agent is not installed.
    """
    try:
        os.execvp(AGENT, [AGENT, *words])
    except FileNotFoundError as error:
        raise SammyError(f"there is no {AGENT} on this machine", "Install the package sammy-agent") from error
