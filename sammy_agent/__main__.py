# SPDX-License-Identifier: Apache-2.0
"""`python3 -m sammy_agent`: the command, also where it is not installed."""

from __future__ import annotations

import sys

from sammy_agent.cli.main import main

sys.exit(main())
