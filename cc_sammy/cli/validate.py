# SPDX-License-Identifier: Apache-2.0
"""`sammy validate`: every error of a `sammy:` key before a machine is booted with it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from cc_sammy import config
from cc_sammy.common import files
from cc_sammy.config_source import INSTANCE, sammy_key
from cc_sammy.contract import paths
from cc_sammy.errors import ConfigError, SammyError


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser("validate", help="check a #cloud-config file's sammy: key")
    parser.add_argument("file", nargs="?", default=INSTANCE, help="default: what this machine was booted with")
    parser.add_argument("--json", action="store_true", help="print {valid, problems}")


def run(arguments: argparse.Namespace) -> int:
    """Print every problem; exit 0 valid, 1 invalid."""
    own = arguments.file == INSTANCE
    overrides = files.read_text(paths.OVERRIDES) if own else None
    problems: list[str] = []
    try:
        config.load(sammy_key(arguments.file), overrides, os.environ)
    except ConfigError as error:
        problems = list(error.problems)
    except SammyError as error:
        problems = [str(error)]
    if arguments.json:
        print(json.dumps({"valid": not problems, "problems": problems}, indent=1))
    elif problems:
        print(
            "\n".join([f"{arguments.file} is not valid:", *(f"  {problem}" for problem in problems)]),
            file=sys.stderr,
        )
    else:
        print(f"{arguments.file} is valid")
    return 1 if problems else 0
