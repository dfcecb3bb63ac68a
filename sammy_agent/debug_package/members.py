# SPDX-License-Identifier: Apache-2.0
"""What goes into the debug package: one table. The first are the most telling, and get what room there is."""

from __future__ import annotations

from dataclasses import dataclass

from cc_sammy.contract import paths

KIB, MIB = 1024, 1024 * 1024
LIMIT = 512 * KIB  # of a member's text, its end being kept; logs have more


@dataclass(frozen=True)
class Command:
    """What a program says, both its streams. One that is not on this machine is a result, no failure."""

    name: str
    argv: tuple[str, ...]
    limit: int = LIMIT


@dataclass(frozen=True)
class Files:
    """Files by a pattern; of each its end."""

    name: str  # the folder they go to
    pattern: str
    limit: int = LIMIT


Member = Command | Files


def _command(name: str, line: str, limit: int = LIMIT) -> Command:
    return Command(name, tuple(line.split()), limit)


MEMBERS: tuple[Member, ...] = (
    # the run
    _command("provisioning-timings.txt", "sammy timings"),
    _command("provisioning-timings.json", "sammy timings --json"),
    _command("provisioning-timings.svg", "sammy analyze plot"),
    _command("provisioning-blame.txt", "sammy analyze blame"),
    _command("critical-path.txt", "sammy analyze critical-chain"),
    _command("status.txt", "sammy status"),
    _command("status.json", "sammy status --json"),
    _command("events.txt", "sammy-agent events --limit 5000"),
    _command("events.json", "sammy-agent events --limit 2000 --json", 2 * MIB),
    _command("metrics.txt", "sammy-agent metrics --since=-1d"),
    _command("metrics.json", "sammy-agent metrics --since=-8h --json", 2 * MIB),
    Files("state", paths.STATE),
    Files("runs", f"{paths.RUNS}/*.json"),
    Files("configuration", paths.AGENT_CONFIG),
    Files("configuration", paths.OVERRIDES),
    _command("cloud-init-status.txt", "cloud-init status --long"),
    _command("cloud-init-analyze.txt", "cloud-init analyze show"),
    Files("cloud-init", "/var/log/cloud-init.log", 4 * MIB),
    Files("cloud-init", "/var/log/cloud-init-output.log", 4 * MIB),
    Files("cloud-init", "/run/cloud-init/instance-data.json"),
    Files("cloud-init", "/run/cloud-init/*result.json"),
    _command(
        "journal-sammy.txt",
        "journalctl -b -o short-precise --no-pager -n 9999 SYSLOG_IDENTIFIER=sammy + _SYSTEMD_UNIT=sammy-agent.service",
        2 * MIB,
    ),
    _command("journal-warnings.txt", "journalctl -b -o short-precise --no-pager -n 20000 -p warning", 2 * MIB),
    _command("journal.txt", "journalctl -b -o short-precise --no-pager -n 60000", 4 * MIB),
    _command("journal-before.txt", "journalctl -b -1 -o short-precise --no-pager -n 10000", 2 * MIB),
    _command("kernel.txt", "journalctl -b -k -o short-precise --no-pager -n 10000", 2 * MIB),
    # systemd
    _command("failed-units.txt", "systemctl list-units --failed --no-pager --plain"),
    _command("units.txt", "systemctl list-units --all --no-pager --plain"),
    _command("blame.txt", "systemd-analyze blame --no-pager"),
    _command("coredumps.txt", "coredumpctl list --no-pager"),
    _command("time.txt", "timedatectl show"),
    _command("time-sync.txt", "timedatectl timesync-status"),
    # firewall and network
    _command("firewall-status.json", "sammy firewall status --json"),
    _command("firewall-check.json", "sammy firewall check --json"),
    _command("nft.txt", "nft -a list ruleset", 2 * MIB),
    _command("iptables.txt", "iptables-save -c"),
    _command("ip6tables.txt", "ip6tables-save -c"),
    _command("conntrack.txt", "conntrack -S"),
    _command("sockets.txt", "ss -tanpie", 2 * MIB),
    _command("sockets-udp.txt", "ss -uanp"),
    _command("links.txt", "ip -s -d link"),
    _command("addresses.txt", "ip addr"),
    _command("routes.txt", "ip route show table all"),
    _command("routes-ipv6.txt", "ip -6 route show table all"),
    _command("rules.txt", "ip rule"),
    Files("network", "/etc/resolv.conf"),
    _command("resolver.txt", "resolvectl status --no-pager"),
    # containers
    _command("docker-info.txt", "docker info"),
    _command("docker-containers.txt", "docker ps --all --no-trunc"),
    Command("docker-inspect.json", ("sh", "-c", "docker ps --all --quiet | xargs -r docker inspect"), 2 * MIB),
    _command("docker-images.txt", "docker images --digests"),
    Files("docker", "/etc/docker/daemon.json"),
    # the machine
    _command("processes.txt", "ps -eo pid,ppid,user,stat,pcpu,rss,lstart,args --sort=-rss", 2 * MIB),
    _command("disk.txt", "df -h"),
    _command("inodes.txt", "df -i"),
    _command("mounts.txt", "findmnt --noheadings"),
    _command("packages.txt", "dpkg-query -W", 2 * MIB),
    _command("packages-unfinished.txt", "dpkg --audit"),
    Files("machine", "/proc/meminfo"),
    Files("machine", "/proc/loadavg"),
    Files("machine", "/proc/pressure/*"),
    Files("machine", "/etc/os-release"),
    Files("machine", "/proc/version"),
)
