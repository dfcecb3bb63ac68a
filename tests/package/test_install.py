# SPDX-License-Identifier: Apache-2.0
"""Install, trigger, upgrade, remove and purge in a real Debian with its real cloud-init."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from cc_sammy.contract import journal_fields
from tests.package.chroot import CLOUD_INIT_DEB, Chroot

pytestmark = pytest.mark.needs("root")

OURS = "/etc/cloud/cloud.cfg.d/95-sammy.cfg"
HANDLER = "/var/lib/cloud/handlers/sammy_schema.py"
LIST = "cloud_final_modules"
BOTH = pytest.mark.parametrize("chroot", ["bookworm", "trixie"], indirect=True)

# What the boot steps, the agent and the firewall leave on a machine.
TRACES = """
mkdir -p /var/lib/sammy/runs /var/lib/sammy/firewall /etc/sammy/tls /run/sammy /etc/systemd/journald.conf.d \
    /etc/systemd/system/sammy-containers.slice.d /etc/systemd/system/sysinit.target.wants \
    /etc/systemd/system/multi-user.target.wants /var/lib/cloud/handlers/__pycache__
touch /var/lib/sammy/runs/1.json /var/lib/sammy/firewall/applied.nft /var/lib/sammy/ready-acknowledged \
    /var/lib/sammy/events.sqlite /etc/sammy/agent.json /etc/sammy/tls/node.key /run/sammy/state.json \
    /etc/apt/keyrings/sammy-agent.asc /etc/apt/sources.list.d/sammy-agent.list /etc/cloud/sammy-no-schema \
    /etc/systemd/journald.conf.d/60-sammy.conf /etc/systemd/system/sammy-containers.slice.d/60-metadata.conf \
    /var/lib/cloud/handlers/__pycache__/sammy_schema.cpython-311.pyc
systemctl enable --quiet sammy-firewall.service sammy-agent.service
nft add table inet sammy
nft add table inet sammy_metadata
"""

IMPORT_ALL = """
import importlib, pkgutil, {package}
names = [m.name for m in pkgutil.walk_packages({package}.__path__, "{package}.") if not m.name.endswith("__main__")]
for name in names:
    importlib.import_module(name)
print(len(names))
"""


def final_modules(chroot: Chroot, *, without_ours: bool = False) -> list[str]:
    """Return the names of cloud-init's final modules as cloud-init itself reads its files."""
    hide = f"import os; os.rename('{OURS}', '/tmp/ours');" if without_ours else ""
    back = f"os.rename('/tmp/ours', '{OURS}');" if without_ours else ""
    read = "from cloudinit import util; c = util.read_conf_with_confd('/etc/cloud/cloud.cfg');"
    text = chroot.run(["python3", "-c", f"{hide}{read}{back}print(c['{LIST}'])"]).stdout
    entries = yaml.safe_load(text)
    return [entry[0] if isinstance(entry, list) else entry for entry in entries]


def ignored(path: str) -> bool:
    """Tell whether a path that changed belongs to others: databases that their own triggers keep."""
    return path.startswith(("/var/lib/systemd/catalog", "/var/cache/", "/srv", "/root", "/etc/ld.so.cache"))


def differences(before: dict[str, str], after: dict[str, str]) -> dict[str, tuple[str | None, str | None]]:
    paths = sorted(set(before) | set(after))
    changed = [path for path in paths if before.get(path) != after.get(path) and not ignored(path)]
    return {path: (before.get(path), after.get(path)) for path in changed}


@BOTH
def test_module_list_is_complete_with_sammy_before_the_final_message(installed: Chroot) -> None:
    with_ours = final_modules(installed)
    stock = final_modules(installed, without_ours=True)
    assert len(stock) > 10
    assert [name for name in with_ours if name != "sammy"] == stock
    names = [name.replace("_", "-") for name in with_ours]
    assert names.count("sammy") == 1
    assert names.index("sammy") < min(names.index("phone-home"), names.index("final-message"))
    assert ["sammy", "always"] in yaml.safe_load(installed.read(OURS) or "")[LIST]


@BOTH
def test_reinstalled_cloud_init_fires_the_trigger(installed: Chroot) -> None:
    installed.sh("sed -i '/scripts-user/d' /etc/cloud/cloud.cfg")
    before = installed.read(OURS)
    assert "scripts-user" in (before or "")
    said = installed.run(["dpkg", "--force-confold", "--install", CLOUD_INIT_DEB]).stdout
    assert "Processing triggers for cloud-init-sammy" in said
    after = final_modules(installed)
    assert "scripts-user" not in after and "sammy" in after


def test_another_packages_file_in_cloud_cfg_d_fires_the_trigger(installed: Chroot) -> None:
    installed.write("/srv/site/DEBIAN/control",
        "Package: site\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b>\nDescription: one file\n")  # fmt: skip
    installed.write("/srv/site/etc/cloud/cloud.cfg.d/50-site.cfg", f"{LIST}: [mine, final-message]\n")
    installed.sh("dpkg-deb --build /srv/site /srv/site.deb; dpkg --install /srv/site.deb")
    assert final_modules(installed) == ["mine", "sammy", "final-message"]


@BOTH
def test_install_leaves_everything_in_its_place(installed: Chroot) -> None:
    assert installed.run(["readlink", HANDLER]).stdout.strip() == "/usr/lib/cloud-init-sammy/sammy_schema.py"
    assert installed.sh("stat -c '%a %U' /run/sammy").split() == ["755", "root"]
    for unit in ("sammy-agent.service", "sammy-firewall.service"):
        state = installed.run(["systemctl", "is-enabled", unit], check=False).stdout.strip()
        assert state == "disabled", f"{unit} is {state}: only its step may enable it"
    explained = installed.sh("journalctl --list-catalog")
    for message in (
        *journal_fields.MESSAGE_ID.values(),
        journal_fields.RUN_STARTED,
        journal_fields.RUN_ENDED,
        journal_fields.CONFIG_INVALID,
    ):
        assert message in explained
    assert installed.sh("dpkg --audit") == ""


@BOTH
def test_units_are_valid(installed: Chroot) -> None:
    units = ("sammy-agent.service", "sammy-firewall.service", "sammy-containers.slice")
    said = installed.run(["systemd-analyze", "verify", "--man=no", *(f"/lib/systemd/system/{unit}" for unit in units)])
    assert [line for line in said.stderr.splitlines() if "sammy" in line] == []
    faulty = "/etc/systemd/system/sammy-faulty.service"
    installed.write(faulty, "[Service]\nExecStart=/no/such/program\nNoSuchKey=1\n")
    shown = installed.run(["systemd-analyze", "verify", "--man=no", faulty], check=False)
    assert "sammy-faulty" in shown.stderr  # verify does tell


def test_firewall_unit_loads_each_file_even_if_the_other_is_broken(installed: Chroot) -> None:
    unit = (installed.read("/lib/systemd/system/sammy-firewall.service") or "").replace("\\\n", "")
    (command,) = [line.partition("=")[2] for line in unit.splitlines() if line.startswith("ExecStart=")]

    def start() -> tuple[int, str]:
        status = installed.run(shlex.split(command.replace("$$", "$")), check=False).returncode
        tables = installed.sh("nft list tables; nft flush ruleset")
        return status, " ".join(tables.split())

    rules = "/var/lib/sammy/firewall"
    assert start() == (0, "")
    installed.write(f"{rules}/metadata.nft", "add table inet sammy_metadata\n")
    assert start() == (0, "table inet sammy_metadata")
    installed.write(f"{rules}/applied.nft", "add table inet sammy\n")
    assert start() == (0, "table inet sammy table inet sammy_metadata")
    installed.write(f"{rules}/applied.nft", "no rules\n")
    assert start() == (1, "table inet sammy_metadata")


def test_common_stands_alone(chroot: Chroot, debs: dict[str, Path]) -> None:
    chroot.install(debs["sammy-common"])
    chroot.run(["python3", "-c", IMPORT_ALL.format(package="cc_sammy")])
    assert "has not run" in chroot.run(["sammy", "status"], check=False).stderr
    assert "SAMMY_FIREWALL_ALLOW" in chroot.run(["sammy", "options"]).stdout
    chroot.write("/root/user-data", "#cloud-config\nsammy: {node_id: node-7}\n")
    assert chroot.run(["sammy", "validate", "/root/user-data"]).returncode == 0
    assert chroot.run(["sammy", "firewall", "apply", "--json"]).returncode == 0
    assert chroot.run(["sammy", "firewall", "check"]).returncode == 0
    said = chroot.run(["dpkg", "--remove", "sammy-common"]).stdout
    assert "firewall lifted: the agent's port is open to all" in said
    assert chroot.sh("nft list tables") == ""


@BOTH
@pytest.mark.parametrize("package", ["cc_sammy", "sammy_agent"])
def test_every_module_imports_with_the_declared_dependencies_alone(installed: Chroot, package: str) -> None:
    assert int(installed.run(["python3", "-c", IMPORT_ALL.format(package=package)]).stdout) > 10


def test_upgrade_keeps_links_rules_and_state(installed: Chroot, debs: dict[str, Path]) -> None:
    installed.sh(TRACES)
    before = installed.files()
    installed.install(*debs.values())
    books = ("/var/lib/systemd/deb-systemd-helper-enabled",)  # which links dpkg's helper knows of
    changed = [path for path in differences(before, installed.files()) if not path.startswith(books)]
    assert [path for path in changed if "__pycache__" not in path] == []
    assert installed.sh("nft list tables").splitlines() == ["table inet sammy", "table inet sammy_metadata"]


def test_broken_cloud_cfg_is_told_and_does_not_stop_dpkg(chroot: Chroot, debs: dict[str, Path]) -> None:
    chroot.sh("echo 'a: [' >> /etc/cloud/cloud.cfg")
    said = chroot.install(*debs.values())
    assert "cloud-init will not run the module sammy" in said and "/etc/cloud/cloud.cfg" in said
    assert chroot.read(OURS) is None
    assert chroot.sh("dpkg --audit") == ""


@BOTH
def test_remove_leaves_a_boot_without_sammy_and_keeps_the_configuration(installed: Chroot) -> None:
    installed.sh(TRACES)
    said = installed.run(["dpkg", "--remove", "cloud-init-sammy", "sammy-agent", "sammy-common"]).stdout
    assert "firewall lifted" in said and "metadata block lifted" in said
    assert "sammy" not in final_modules(installed)
    # deb-systemd-helper keeps its books, as dpkg does, until purge.
    left = installed.sh(
        "find / -xdev -name '*sammy*' -not -path '/var/lib/dpkg/*' -not -path '/var/lib/systemd/*' | sort"
    )
    assert left.split() == [
        "/etc/apt/keyrings/sammy-agent.asc",
        "/etc/apt/sources.list.d/sammy-agent.list",
        "/etc/cloud/sammy-no-schema",
        "/etc/default/sammy",
        "/etc/sammy",
        "/etc/systemd/journald.conf.d/60-sammy.conf",
        "/etc/systemd/system/sammy-containers.slice.d",
        "/run/sammy",
        "/var/lib/sammy",
    ]
    assert installed.sh("nft list tables") == ""
    assert installed.run(["cloud-init", "--version"]).returncode == 0


@BOTH
def test_purge_leaves_nothing(chroot: Chroot, debs: dict[str, Path]) -> None:
    before = chroot.files()
    chroot.install(*debs.values())
    assert [path for path in differences(before, chroot.files()) if path.endswith("/sammy")]  # the comparison sees
    chroot.sh(TRACES)
    chroot.run(["dpkg", "--purge", "cloud-init-sammy", "sammy-agent", "sammy-common"])
    assert differences(before, chroot.files()) == {}
    books = chroot.sh("find /var/lib/dpkg/info /var/lib/systemd -name '*sammy*'; dpkg-query -W -f '${Package}\\n'")
    assert "sammy" not in books


def test_purging_one_keeps_what_belongs_to_the_others(installed: Chroot) -> None:
    installed.sh(TRACES)
    installed.run(["dpkg", "--purge", "sammy-agent"])
    kept = installed.sh("find /var/lib/sammy /run/sammy -type f | sort").split()
    assert kept == ["/run/sammy/state.json", "/var/lib/sammy/firewall/applied.nft", "/var/lib/sammy/runs/1.json"]
    assert installed.run(["test", "-e", "/etc/sammy"], check=False).returncode == 1
    installed.run(["dpkg", "--purge", "cloud-init-sammy"])
    assert installed.sh("find /var/lib/sammy -type f").split() == ["/var/lib/sammy/firewall/applied.nft"]
    assert "table inet sammy\n" in installed.sh("nft list tables")


def test_chroots_network_is_not_the_machines(chroot: Chroot) -> None:
    chroot.sh("nft add table inet sammy_probe")
    mine = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False).stdout
    assert "sammy_probe" not in mine
