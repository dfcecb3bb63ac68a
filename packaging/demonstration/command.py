# SPDX-License-Identifier: Apache-2.0
"""The story of packaging/demo, readable top to bottom."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from demonstration import prerequisites
from demonstration.screen import Screen

TOP = Path(__file__).resolve().parents[2]
OUT = TOP / "build" / "demo"
NODE = "demo-node"
DEADLINE = {"qemu": 1500.0, "container": 300.0}  # seconds from power-on; emulated CPUs on a busy host are slow


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="packaging/demo", description="Boot a real machine and follow it to running and healthy."
    )
    parser.add_argument("--machine", choices=["qemu", "container"], default="qemu",
                        help="qemu: a virtual machine with its own kernel; container: systemd-nspawn")  # fmt: skip
    parser.add_argument("--stock", action="store_true", help="an image without our packages: it gets them as it boots")
    parser.add_argument("--keep", action="store_true", help="leave the machine up until Enter is pressed")
    parser.add_argument("--check", action="store_true", help="assert more than the verdict, as CI wants it")
    return parser.parse_args()


def main() -> int:
    """Run the demonstration; exit 0 when the node is running and healthy, 1 when not, 2 for a wrong command line."""
    arguments = _arguments()
    if os.geteuid() != 0:
        print("packaging/demo makes images and machines: run it as root (sudo packaging/demo)", file=sys.stderr)
        return 1
    screen = Screen()
    try:
        lacking = prerequisites.missing(prerequisites.needed(arguments.machine))
        if lacking:
            screen.line(f"installing {' '.join(lacking)}")
            prerequisites.install(lacking)
    except subprocess.CalledProcessError as error:
        print(f"packaging/demo: apt could not install it (status {error.returncode})", file=sys.stderr)
        return 1
    from cc_sammy.errors import SammyError

    try:
        return _demonstrate(arguments, screen)
    except SammyError as error:
        screen.plain(f"packaging/demo: {error}")
        return 1
    except KeyboardInterrupt:
        screen.plain("packaging/demo: stopped")
        return 130


def _demonstrate(arguments: argparse.Namespace, screen: Screen) -> int:
    from demonstration import follow

    out = OUT / arguments.machine
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    screen.line("building the packages")
    debs = _packages()
    with contextlib.ExitStack() as stack:
        screen.line("making the image, the sources and the control plane")
        machine, plane, journal = _machine(arguments, debs, out, stack)
        screen.line(f"control plane at {plane.url}")
        screen.restart_clock()
        machine.start()
        screen.line(f"power on ({getattr(machine, 'accelerator', '') or 'container'})")
        stack.enter_context(journal())
        boot = follow.Boot()
        path = out / "journal.json"

        def arrived() -> bool:
            node = plane.node(NODE)
            return (node.get("status"), node.get("healthStatus")) == ("running", "healthy")

        entries = follow.Journal(path)
        limit = DEADLINE[arguments.machine]
        why = follow.until(boot, entries, screen, arrived=arrived, alive=lambda: machine.alive, seconds=limit)
        if not why:
            screen.line("running and healthy at the control plane", "32;1")
        problems = [why] if why else []
        problems += _report(machine, plane, screen, out, check=arguments.check)
        if arguments.keep and machine.alive:
            _keep(screen, plane, machine)
        _save_logs(machine, out)
    for problem in problems:
        screen.plain(f"packaging/demo: {problem}")
    if problems:
        screen.plain(f"The last of its screen:\n{_tail(out / 'serial.log')}")
    screen.plain(f"Timings, journal and serial log: {out.relative_to(TOP)}/")
    return 1 if problems else 0


def _packages() -> list[Path]:
    """Build our Debian packages, if their inputs changed."""
    from tests.lab.shell import run

    return [Path(line) for line in run([TOP / "packaging/build-deb"], timeout=600).stdout.split()]


def _machine(
    arguments: argparse.Namespace, debs: list[Path], out: Path, stack: contextlib.ExitStack
) -> tuple[Any, Any, Callable[[], Any]]:
    """Return the machine, not yet powered on, its control plane, and what has its journal written to a file."""
    from tests.lab import Machine, debian
    from tests.lab.control_plane import control_plane
    from tests.lab.disk import disk, tree
    from tests.lab.network import ALLOWED, Loopback, Network
    from tests.lab.qemu import VirtualMachine
    from tests.lab.sources import Sources

    image_debs = [] if arguments.stock else [deb for deb in debs if not deb.name.startswith("sammy-agent")]
    network: Any
    if arguments.machine == "qemu":
        network, base = Loopback("demo"), tree()
        sources = stack.enter_context(Sources(network, base, debs=debs, packages=()))
    else:
        network, base = stack.enter_context(Network("demo")), debian()
        sources = stack.enter_context(Sources(network, base, debs=debs))
    plane = stack.enter_context(control_plane(network, out))
    sammy = sources.user_config()
    allow = list(ALLOWED) if arguments.machine == "container" else [f"{network.edge}/32"]
    sammy["firewall"] = {"allow": allow}
    if arguments.stock:
        sammy["packages"].pop("apt")  # the stock image's own source names the repository
    user_data = plane.user_data(NODE, sammy, sources if arguments.stock else None)
    if arguments.machine == "qemu":
        machine: Any = VirtualMachine(NODE, disk(image_debs), user_data, directory=out)
        return stack.enter_context(machine), plane, contextlib.nullcontext
    machine = stack.enter_context(Machine(NODE, base, user_data, extra_debs=image_debs, network=network))
    return machine, plane, lambda: _journal_of_container(machine, out / "journal.json")


@contextlib.contextmanager
def _journal_of_container(machine: Any, path: Path) -> Iterator[None]:
    """Write the container's journal to a file as it grows."""
    with path.open("wb") as file:
        command = [*machine.enter(), "journalctl", "-b", "-f", "-n", "all", "-o", "json"]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _report(machine: Any, plane: Any, screen: Screen, out: Path, *, check: bool) -> list[str]:
    """Print what a person wants to see at the end; return what is wrong."""
    if not machine.alive:
        return []
    problems = []
    timings = machine.run(["sammy", "timings"], check=False).stdout
    as_json = machine.run(["sammy", "timings", "--json"], check=False).stdout
    (out / "timings.txt").write_text(timings)
    (out / "timings.json").write_text(as_json)
    cloud_init = machine.run(["cloud-init", "status", "--long", "--wait"], check=False, timeout=300)
    nodes = plane.command("control-plane", "--state", str(plane.state), "nodes")
    screen.plain(f"\n{timings}\n{nodes}\n{cloud_init.stdout.strip()}\n")
    if check:
        failed = machine.run(["systemctl", "--failed", "--no-legend", "--plain"], check=False).stdout
        rows = json.loads(as_json or "[]")
        wrong = [row["step"] for row in rows if row["status"] not in ("completed", "skipped")]
        expectations = {
            f"cloud-init ended with status {cloud_init.returncode}": cloud_init.returncode == 0,
            f"units failed: {failed.strip()}": not failed.strip(),
            f"{len(rows)} rows of timings, not 12": len(rows) == 12,
            f"steps not done: {' '.join(wrong)}": not wrong,
            "docker does not run": machine.run(["docker", "info"], check=False, timeout=120).returncode == 0,
            "the firewall has drifted": machine.run(["sammy", "firewall", "check"], check=False).returncode == 0,
        }
        problems = [what for what, holds in expectations.items() if not holds]
    return problems


def _keep(screen: Screen, plane: Any, machine: Any) -> None:
    screen.plain(f"The machine stays up. The control plane is {plane.url}; its state is {plane.state}.")
    screen.plain(f"Try: sammy-agent control-plane --state {plane.state} nodes")
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        input("Press Enter to power it off. ")


def _save_logs(machine: Any, out: Path) -> None:
    """Leave the console where the closing words say it is."""
    console = machine.console_path
    if console.exists() and console != out / "serial.log":
        shutil.copy(console, out / "serial.log")


def _tail(path: Path) -> str:
    if not path.exists():
        return "(nothing)"
    return "\n".join(f"  | {line}" for line in path.read_text(errors="replace").splitlines()[-25:])
