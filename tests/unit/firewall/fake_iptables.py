# SPDX-License-Identifier: Apache-2.0
"""A kernel's iptables in memory, as far as the firewall speaks to it; `recorded` is what the real programs print.

The records are of iptables 1.8.9 and nft 1.0.6 in a network namespace. That what is loaded here prints as it did there
is test_iptables_backend's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cc_sammy.errors import CommandFailed
from cc_sammy.host.fake import FakeHost
from cc_sammy.host.host import CommandResult

# read once, at import: a test over a fake file system does not see them
RECORDED = {path.name: path.read_text() for path in (Path(__file__).parent / "recorded").iterdir()}
EMPTY = RECORDED["iptables-nft.empty"]
REFUSED = "iptables-restore v1.8.9 (nf_tables): \nline 2: RULE_REPLACE failed (Invalid argument): rule in chain SAMMY"


class Iptables(FakeHost):
    """Each program's filter table is its `-v -S` text in `tables`; `inputs` are the restores in their order."""

    def __init__(self, version: str = "iptables v1.8.9 (nf_tables)", **tables: str) -> None:
        super().__init__()
        self.tables = dict.fromkeys(("iptables-nft", "ip6tables-nft"), EMPTY)
        self.tables |= {name.replace("_", "-"): text for name, text in tables.items()}
        self.inputs: list[tuple[str, str]] = []
        self.refusals = 0  # how many of the next restores fail
        self.forgets = ""  # a line that the kernel drops on its way in
        self.script(["iptables", "-V"], stdout=version + "\n")
        self.script(["nft", "--json", "list", "chains"], stdout=RECORDED["chains-loaded.json"])

    def run(self, argv: Sequence[str], *, check: bool = True, input: str | None = None, **more: Any) -> CommandResult:
        """Answer as iptables does; what it does not know is FakeHost's."""
        name = argv[0].removesuffix("-restore")
        if name not in self.tables:
            return super().run(argv, check=check, input=input, **more)
        self.calls.append(tuple(argv))
        status, printed = 0, ""
        if argv[0].endswith("-restore"):
            self.inputs.append((name, input or ""))
            if self.refusals:
                self.refusals -= 1
                status, printed = 2, REFUSED
            else:
                self._change(name, (input or "").splitlines())
        elif argv[-1] == "-S":
            printed = self.tables[name]
        elif argv[-2:] == ["-S", "SAMMY"]:
            printed = "".join(
                re.sub(r" -c \d+ \d+", "", line) + "\n" for line in self.tables[name].splitlines() if "-A SAMMY" in line
            )
            status = 0 if "-N SAMMY" in self.tables[name] else 1
        elif "-P" in argv:
            self.tables[name] = re.sub("^-P INPUT DROP", "-P INPUT " + argv[-1], self.tables[name], flags=re.MULTILINE)
        else:
            self._change(name, [" ".join(argv[argv.index("-I") :])])
        if status and check:
            raise CommandFailed(argv, status, printed)
        return CommandResult(tuple(argv), status, printed, "")

    def _change(self, name: str, lines: Sequence[str]) -> None:
        held = self.tables[name].splitlines()
        policies = [line for line in held if line.startswith("-P")]
        chains = [line for line in held if line.startswith("-N")]
        rules = {chain: [one for one in held if one.startswith(f"-A {chain} ")] for chain in ("INPUT", "SAMMY")}
        for line in lines:
            verb, chain = (*line.split(), "")[:2]
            counted = re.sub(r"^-[AID] (\S+ )(1 )?(.*?)( ?)(-j \S+)$", r"-A \1\3\4-c 0 0 \5", line)
            if line == ":SAMMY - [0:0]":
                rules["SAMMY"] = []
                chains = chains if "-N SAMMY" in chains else [*chains, "-N SAMMY"]
            elif verb == "-A" and line != self.forgets:
                rules[chain].append(counted)
            elif verb == "-I":
                rules[chain].insert(0, counted)
            elif verb == "-D":
                rules[chain].remove(next(one for one in rules[chain] if re.sub("-c .* -j", "-j", one)[2:] == line[2:]))
            elif verb == "-X":
                chains.remove("-N SAMMY")
        self.tables[name] = "\n".join([*policies, *chains, *rules["INPUT"], *rules["SAMMY"]]) + "\n"
