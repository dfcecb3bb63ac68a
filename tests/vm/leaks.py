# SPDX-License-Identifier: Apache-2.0
"""Secrets planted all over a machine, and the search for them in what the machine gives away.

Each place has each kind of secret that can stand there, each with a value of its own, so that a find says what leaked
from where. The search knows more than one writing, and is shown a package made without the redactor.
"""

from __future__ import annotations

import base64
import json
import random
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote

from tests.lab import Machine
from tests.unit.agent.test_scrub import SURVIVORS, UNKNOWN, made, traces

TEXTS = ("journal", "cloud-init", "cloud-init output", "a container's log", "a unit", "overrides")
NAMES = ("DB_PASSWORD", "API_TOKEN", "CLIENT_SECRET", "AWS_SECRET_ACCESS_KEY", "SIGNING_KEY", "MYSQL_PWD", "SMTP_PASS")
# Kinds of several lines cannot stand in a unit or in a file of variables.
ONE_LINE = tuple(kind for kind in UNKNOWN if "\n" not in UNKNOWN[kind]("x" * 24))

PLANT = r"""
import json, os, subprocess, sys
from systemd import journal

planted = json.load(sys.stdin)
for line in planted["journal"] + planted["survivors"]:
    journal.send(line, SYSLOG_IDENTIFIER="planted")
for path, name in (("/var/log/cloud-init.log", "cloud-init"), ("/var/log/cloud-init-output.log", "cloud-init output")):
    with open(path, "a") as file:
        file.write("".join(f"{line}\n" for line in planted[name]))
os.makedirs("/etc/systemd/system/docker.service.d", exist_ok=True)
with open("/etc/systemd/system/docker.service.d/planted.conf", "w") as file:
    file.write("[Service]\n" + "".join(f"# {line}\n" for line in planted["a unit"]))
    file.write("".join(f'Environment="{pair}"\n' for pair in planted["a unit's environment"]))
with open("/etc/default/sammy", "a") as file:
    file.write("".join(f"# {line}\n" for line in planted["overrides"]))
with open("/etc/docker/daemon.json") as file:
    daemon = json.load(file)
daemon["labels"] = planted["daemon.json"]
with open("/etc/docker/daemon.json", "w") as file:
    json.dump(daemon, file, indent=1)
subprocess.run(["systemctl", "daemon-reload"], check=True)
environment = {**os.environ, **dict(pair.split("=", 1) for pair in planted["an environment"])}
waits = [sys.executable, "-c", "import time; time.sleep(3600)", *planted["arguments"]]
# nobody is to wait for it: its streams are nobody's
subprocess.Popen(waits, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
# what it says comes from a file: as an argument it would be in docker inspect too
with open("/root/says", "w") as file:
    file.write("".join(f"{line}\n" for line in planted["a container's log"]))
run = ["docker", "run", "--detach", "--name=planted", "--network=none", "--volume=/root/says:/says:ro"]
run += [word for pair in planted["a container's environment"] for word in ("--env", pair)]
run += [word for pair in planted["a container's labels"] for word in ("--label", pair)]
run += [planted["image"], "sh", "-c", "cat /says; sleep 3600", *planted["a container's arguments"]]
subprocess.run(run, check=True, stdout=subprocess.DEVNULL)
"""
UNSCRUBBED = """
import sys
from sammy_agent.diagnostics.redaction import secret_matcher as known, redactor
redactor.RedactionStream._line = lambda self, line: line
known.KnownSecrets.redact = lambda self, text: text
known.KnownSecrets.contains_secret = lambda self, text: False
from sammy_agent.cli.main import main
sys.exit(main(["debug-package", "--json", "--output", "/root/raw.tar.gz"]))
"""


@dataclass(frozen=True)
class Secret:
    """One planted secret."""

    where: str
    kind: str
    value: str

    def writings(self) -> set[str]:
        """Return texts by which it would be known, plain and encoded."""
        raw = self.value.encode()
        shifted = [base64.b64encode(b"\0" * shift + raw).decode()[4:-4] for shift in range(3)]
        found = {*traces(self.value), quote(self.value, safe=""), raw.hex(), raw.hex().upper(), *shifted}
        return {text for text in found if len(text) >= 10}


class Plants:
    """All of them, made from one seed, and the lines in which they stand."""

    def __init__(self, image: str) -> None:
        self._chance = random.Random(20261124)
        self.secrets: list[Secret] = []
        self.lines: dict[str, list[str]] = {}
        for where in TEXTS:
            kinds = (
                UNKNOWN if where in ("journal", "cloud-init", "cloud-init output", "a container's log") else ONE_LINE
            )
            # a key whose head was cut off is only known as one at a text's beginning
            self._plant(where, [kind for kind in kinds if "head was cut off" not in kind])
        for where in ("an environment", "a container's environment", "a unit's environment", "daemon.json"):
            self.lines[where] = [f"{name}={self._new(where, name)}" for name in NAMES]
        self.lines["a container's labels"] = [f"planted.token={self._new('a label', 'token')}"]
        for where in ("arguments", "a container's arguments"):
            self.lines[where] = [f"--password={self._new(where, '=')}", "--token", self._new(where, "the next")]
        self.document = {**self.lines, "survivors": SURVIVORS, "image": image}

    def into(self, machine: Machine) -> None:
        """Plant them."""
        machine.run(["/usr/bin/python3", "-c", PLANT], input=json.dumps(self.document), timeout=120)

    def found(self, texts: dict[str, str]) -> Iterator[str]:
        """Yield what is found, in words."""
        for secret in self.secrets:
            for name, text in texts.items():
                hit = next((writing for writing in secret.writings() if writing in text), None)
                if hit is not None:
                    yield f"{secret.kind} of {secret.where} in {name}"
                    break

    def _plant(self, where: str, kinds: list[str]) -> None:
        self.lines[where] = []
        for kind in kinds:
            text = UNKNOWN[kind](self._new(where, kind))
            self.lines[where] += text.splitlines()

    def _new(self, where: str, kind: str) -> str:
        value = made(self._chance)
        self.secrets.append(Secret(where, kind, value))
        return value


def unpacked(machine: Machine, path: str) -> dict[str, str]:
    """Return the files of an archive on the machine's disk."""
    with tarfile.open(machine.root / path.lstrip("/")) as archive:
        found = {member.name.partition("/")[2]: archive.extractfile(member) for member in archive}
        return {name: file.read().decode() for name, file in found.items() if file is not None}
