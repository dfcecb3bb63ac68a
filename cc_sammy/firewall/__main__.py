# SPDX-License-Identifier: Apache-2.0
"""The verbs of `sammy firewall` for units, timers and the agent: `python3 -I -S …/cc_sammy/firewall/__main__.py VERB`.

It imports little and reads the settings kept by the last run: at a boot and in a timer each start is paid for. Run by
its path (contract.paths.FIREWALL) it starts in half the time that `python3 -m cc_sammy.firewall` takes.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

if __name__ == "__main__":
    gc.disable()  # it lives 40 ms, and half of them are imports
if not __package__:  # by its path, and -I -S look neither at this folder nor at installed packages
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from cc_sammy.errors import SammyError
from cc_sammy.firewall import commands, settings_cache
from cc_sammy.host.host import Host


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit status."""
    arguments = _parse(list(sys.argv[1:] if argv is None else argv))
    host = Host()
    try:
        config, port = settings_cache.load(os.environ)
    except SammyError as error:
        print(f"sammy firewall: {error}", file=sys.stderr)
        return 1
    return commands.run(arguments, host, config, port)


def _parse(words: list[str]) -> Any:
    """Read the plain forms by hand, because argparse costs 15 ms; it has the rest, help and errors."""
    if (
        len(words) in (1, 2)
        and words[0] in {*commands.VERBS, *commands.INTERNAL_COMMANDS}
        and words[1:] in ([], ["--json"])
    ):
        return SimpleNamespace(firewall_verb=words[0], json=len(words) == 2)
    if len(words) == 3 and words[0] == "trial" and words[1].isdigit() and words[2] == "--json":
        return SimpleNamespace(firewall_verb="trial", json=True, seconds=int(words[1]))
    import argparse

    parser = argparse.ArgumentParser(prog="python3 -m cc_sammy.firewall", description=commands.__doc__)
    commands.add_verbs(parser)
    return parser.parse_args(words)


if __name__ == "__main__":
    status = main()
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)  # taking the interpreter apart would cost a tenth of the run; nothing is left to be done
