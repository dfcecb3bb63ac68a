# SPDX-License-Identifier: Apache-2.0
"""The members of the debug package, one table: the most useful first, which get the room and the time there is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cc_sammy.contract import paths
from sammy_agent.base.runtime.paths import STATE_DIR, Paths

KIB, MIB = 1024, 1024 * 1024
LIMIT = 512 * KIB  # of a member's text, whose tail is kept; logs have more


@dataclass(frozen=True)
class Command:
    """The output of a program, both streams. A program that is not installed is a result, not a failure."""

    name: str
    argv: tuple[str, ...]
    limit: int = LIMIT
    newest_first: bool = False  # it prints the newest first, as `journalctl -r`, and is stopped when that is enough


@dataclass(frozen=True)
class FileGlob:
    """Files by a pattern: the tail of each, and of many the last by name."""

    name: str  # the folder they go to
    pattern: str
    limit: int = LIMIT
    most: int = 20


@dataclass(frozen=True)
class DatabaseDump:
    """A database of the agent, row by row; of the columns in `private` only the size."""

    name: str
    path: str
    private: tuple[str, ...] = ()
    limit: int = 2 * MIB


@dataclass(frozen=True)
class SocketQuery:
    """An answer of the running agent on its control socket."""

    name: str
    verb: str
    limit: int = LIMIT


@dataclass(frozen=True)
class Computed:
    """A document that this process computes itself."""

    name: str
    make: Callable[[Paths], dict[str, Any]]
    limit: int = LIMIT


def _system_info(_: Paths) -> dict[str, Any]:
    from sammy_agent.node.system_info import SystemInfo

    return SystemInfo().get()


Member = Command | FileGlob | DatabaseDump | SocketQuery | Computed


def _command(name: str, line: str, limit: int = LIMIT) -> Command:
    return Command(name, tuple(line.split()), limit)


def _journal(name: str, words: str, limit: int) -> Command:
    """The journal is read from its end: of a large one only what is taken need be looked at, and mapped."""
    line = f"journalctl --reverse -o short-precise --no-pager {words}"
    return Command(name, tuple(line.split()), limit, newest_first=True)


def _script(name: str, script: str, limit: int = LIMIT) -> Command:
    return Command(name, ("sh", "-c", script), limit)


_OURS = "SYSLOG_IDENTIFIER=sammy + _SYSTEMD_UNIT=sammy-agent.service"
_EACH_LOG = (
    "docker ps --all --format '{{.Names}}' | head -n 40 | while read -r name; do echo \"== $name\"; "
    'docker logs --timestamps --tail 2000 "$name" 2>&1 | tail -c 262144; done'
)

MEMBERS: tuple[Member, ...] = (
    # the run
    _command("provisioning-timings.txt", "sammy timings --long"),
    _command("provisioning-timings.json", "sammy timings --json"),
    _command("provisioning-timings.svg", "sammy analyze plot"),
    _command("provisioning-blame.txt", "sammy analyze blame"),
    _command("critical-path.txt", "sammy analyze critical-chain"),
    _command("status.txt", "sammy status"),
    _command("status.json", "sammy status --json"),
    _command("events.txt", "sammy-agent events --limit 5000"),
    _command("metrics.txt", "sammy-agent metrics --since=-1d"),
    SocketQuery("agent-status.json", "status"),
    SocketQuery("history.json", "history"),
    FileGlob("state", paths.STATE),
    FileGlob("runs", f"{paths.RUNS}/*.json", 128 * KIB),
    FileGlob("configuration", paths.AGENT_CONFIG),
    FileGlob("configuration", paths.OVERRIDES),
    _command("cloud-init-status.txt", "cloud-init status --long"),
    _journal("journal-sammy.txt", f"-b -n 9999 {_OURS}", 2 * MIB),
    _command("failed-units.txt", "systemctl list-units --failed --no-pager --plain"),
    FileGlob("cloud-init", "/var/log/cloud-init-output.log", 2 * MIB),
    FileGlob("cloud-init", "/var/log/cloud-init.log", 4 * MIB),
    _journal("journal-warnings.txt", "-b -n 20000 -p warning", 2 * MIB),
    # firewall and network
    _command("firewall-status.json", "sammy firewall status --json"),
    _command("firewall-check.json", "sammy firewall check --json"),
    _command("nft.txt", "nft -a list ruleset", 2 * MIB),
    _command("iptables.txt", "iptables-save -c"),
    _command("ip6tables.txt", "ip6tables-save -c"),
    _command("iptables-legacy.txt", "iptables-legacy-save -c"),
    _command("ip6tables-legacy.txt", "ip6tables-legacy-save -c"),
    FileGlob("firewall", "/var/lib/sammy/firewall/*"),
    # the kernel's own figures: the program conntrack is on few images
    FileGlob("conntrack", "/proc/sys/net/netfilter/nf_conntrack_*", most=100),
    FileGlob("conntrack", "/proc/net/stat/nf_conntrack"),
    _command("conntrack-statistics.txt", "conntrack -S"),
    _command("conntrack.txt", "conntrack -L", 1 * MIB),
    _command("sockets.txt", "ss -tanpie", 2 * MIB),
    _command("sockets-udp.txt", "ss -uanp"),
    _command("links.txt", "ip -s -d link"),
    _command("addresses.txt", "ip addr"),
    _command("neighbours.txt", "ip -s neigh"),
    _command("routes.txt", "ip route show table all"),
    _command("routes-ipv6.txt", "ip -6 route show table all"),
    _command("rules.txt", "ip rule"),
    _command("network-statistics.txt", "nstat -asz"),
    _command("network-settings.txt", "sysctl -a --pattern ^net\\.(netfilter|ipv4\\.(tcp|ip_local|ip_forward)|core)"),
    FileGlob("network", "/etc/resolv.conf"),
    FileGlob("network", "/etc/hosts"),
    _command("resolver.txt", "resolvectl status --no-pager"),
    # time
    _command("time.txt", "timedatectl show"),
    _command("time-sync.txt", "timedatectl timesync-status"),
    _command("time-chrony.txt", "chronyc -n tracking"),
    # what the agent keeps
    DatabaseDump("events.jsonl", f"{STATE_DIR}/events.db"),
    DatabaseDump("metrics.jsonl", f"{STATE_DIR}/metrics.db"),
    # what workspaces say is their users' own: only how much of it waits, and since when
    DatabaseDump("outbox.jsonl", f"{STATE_DIR}/outbox.db", private=("body",)),
    # containers
    _command("docker-info.txt", "docker info"),
    _command("docker-containers.txt", "docker ps --all --no-trunc"),
    _script("docker-inspect.json", "docker ps --all --quiet | xargs -r docker inspect", 2 * MIB),
    _script("docker-logs.txt", _EACH_LOG, 2 * MIB),
    _command("docker-images.txt", "docker images --digests"),
    _command("docker-disk.txt", "docker system df"),
    _command("docker-networks.txt", "docker network ls --no-trunc"),
    FileGlob("docker", "/etc/docker/daemon.json"),
    _journal("docker-daemon.txt", "-b -n 5000 -u docker -u containerd", 1 * MIB),
    # systemd
    _command("systemd-status.txt", "systemctl status --no-pager --full sammy-agent docker containerd cloud-final"),
    _command("units-as-written.txt", "systemctl cat --no-pager sammy-agent docker containerd cloud-final"),
    _command("units.txt", "systemctl list-units --all --no-pager --plain"),
    _command("blame.txt", "systemd-analyze blame --no-pager"),
    _command("systemd-critical-chain.txt", "systemd-analyze critical-chain --no-pager"),
    _command("coredumps.txt", "coredumpctl list --no-pager"),
    _command("cloud-init-analyze.txt", "cloud-init analyze show"),
    _command("cloud-init-blame.txt", "cloud-init analyze blame"),
    FileGlob("cloud-init", "/run/cloud-init/instance-data.json"),  # cloud-init's own redacted form
    FileGlob("cloud-init", "/run/cloud-init/*.log"),
    FileGlob("cloud-init", "/run/cloud-init/*result.json"),
    FileGlob("cloud-init", "/run/cloud-init/status.json"),
    # the machine
    Computed("system-info.json", _system_info),
    _command("processes.txt", "ps -eo pid,ppid,user,stat,pcpu,rss,lstart,args --sort=-rss", 2 * MIB),
    _command("disk.txt", "df -h"),
    _command("inodes.txt", "df -i"),
    _command("disk-usage.txt", "du -xsh /var/log /var/lib/sammy /var/cache/apt /tmp"),
    _command("mounts.txt", "findmnt --noheadings"),
    _command("packages.txt", "dpkg-query -W", 2 * MIB),
    _command("packages-unfinished.txt", "dpkg --audit"),
    FileGlob("apt", "/var/log/apt/history.log"),
    FileGlob("apt", "/var/log/apt/term.log"),
    FileGlob("machine", "/proc/meminfo"),
    FileGlob("machine", "/proc/loadavg"),
    FileGlob("machine", "/proc/pressure/*"),
    FileGlob("machine", "/etc/os-release"),
    FileGlob("machine", "/proc/version"),
    # the long logs, last: they may take all the room that is left
    _journal("kernel.txt", "-b -k -n 10000", 2 * MIB),
    _command("dmesg.txt", "dmesg", 256 * KIB),
    _journal("journal.txt", "-b -n 60000", 8 * MIB),
    _journal("journal-before.txt", "-b -1 -n 10000", 2 * MIB),
    FileGlob("logs", "/var/log/syslog", 2 * MIB),
)  # fmt: skip
