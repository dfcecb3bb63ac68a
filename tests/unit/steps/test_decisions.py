# SPDX-License-Identifier: Apache-2.0
"""What the steps decide and write, over a disk and a host in memory; tests/vm shows what they do on booted machines."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from typing import Any

import pytest
from pyfakefs.fake_filesystem import FakeFilesystem

from cc_sammy import config
from cc_sammy.common import files
from cc_sammy.errors import CommandFailed, ConfigError, StepFailed
from cc_sammy.firewall import metadata_table
from cc_sammy.host.fake import FakeHost
from cc_sammy.host.host import CommandResult
from cc_sammy.steps import (
    agent_install,
    declared,
    devcontainer_cli,
    docker,
    docker_restart,
    firewall,
    journald_config,
    metadata_block,
    nodejs_install,
    packages,
)
from cc_sammy.system import apt
from tests.unit.fake_files import contents, disk_full, lay_out, new_disk, read_only

KEY = "-----BEGIN PGP PUBLIC KEY BLOCK-----\nx\n-----END PGP PUBLIC KEY BLOCK-----"
LISTS = "/var/lib/apt/lists/x_Packages"
SHOW = ["systemctl", "show", "docker.service"]


@pytest.fixture(autouse=True)
def disk(fs: FakeFilesystem) -> FakeFilesystem:
    new_disk(fs)
    return fs


def make(**sections: Any) -> config.Config:
    return config.load(sections)


def installed(host: FakeHost, *names: str) -> None:
    host.script(["dpkg-query"], 0 if names else 1, "".join(f"installed {name}\n" for name in names))


def test_one_transaction_holds_what_all_steps_need_of_apt(disk: FakeFilesystem) -> None:
    host = FakeHost()
    lay_out(disk, {LISTS: ""})
    installed(host, "git")
    packages.run(host, make(packages={"install": ["git", "jq"]}))
    installs = [call for call in host.calls if call[0] == "apt-get" and "install" in call]
    assert [call[call.index("--no-install-recommends") + 1 :] for call in installs] == [
        ("jq", "docker.io", "nodejs", "sammy-agent")
    ]
    assert not any("update" in call for call in host.calls)


def test_apts_timers_are_silenced_for_this_boot_only_and_given_back_also_after_a_failure() -> None:
    host = FakeHost()
    host.script(["systemctl", "show", "apt-daily.timer"], stdout="ActiveState=active\n")
    host.script(["apt-get"], 100, stderr="E: Unable to locate package jq\n")
    with pytest.raises(StepFailed, match="Unable to locate package jq"):
        packages.run(host, make())
    verbs = [call[1:] for call in host.calls if call[0] == "systemctl" and call[1] != "show"]
    assert [verb[0] for verb in verbs] == ["stop", "mask", "unmask", "start"]
    assert [verb[1] for verb in verbs[1:3]] == ["--runtime", "--runtime"]
    assert verbs[-1] == ("start", "--no-block", "apt-daily.timer")


def test_a_package_of_another_step_that_cannot_be_had_does_not_take_ours_with_it(disk: FakeFilesystem) -> None:
    host = FakeHost()
    lay_out(disk, {LISTS: ""})
    installed(host, "docker.io", "nodejs")
    wanted = make(packages={"install": ["jq"]})
    host.script([*install_call(), "jq", "sammy-agent"], 100, stderr="E: Unable to locate package sammy-agent\n")
    packages.run(host, wanted)
    assert host.calls[-2] == (*install_call(), "jq")


def install_call() -> tuple[str, ...]:
    return ("apt-get", *apt.OPTIONS, "install", "-y", "--no-install-recommends")


def test_lists_that_name_vanished_versions_are_read_anew_once() -> None:
    host = FakeHost()
    host.script(["apt-get", *apt.OPTIONS, "install"], 100, stderr="E: Failed to fetch jq 404\n")
    with pytest.raises(StepFailed, match="404"):
        apt.install(host, ["jq"])
    verbs = [call[len(apt.OPTIONS) + 1] for call in host.calls if call[0] == "apt-get"]
    assert verbs == ["install", "update", "install"]


def test_whoever_reads_the_lists_already_is_waited_for_but_not_for_ever() -> None:
    class Busy(FakeHost):
        left = 3

        def run(self, argv: Sequence[str], **more: Any) -> CommandResult:
            if "update" in argv and self.left:
                self.left -= 1
                said = "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7 (apt-get)\n"
                raise CommandFailed(argv, 100, said)
            return super().run(argv, **more)

    host = Busy()
    apt.update(host)
    assert [call[-1] for call in host.calls] == ["update"]
    host = Busy()
    host.left = 10**6
    with pytest.raises(CommandFailed, match=r"held by process 7 \(apt-get\)"):
        apt.update(host)
    assert 300 < host.now - 100 < 310


def test_nodejs_waits_for_apt_only_where_apt_is_to_bring_it(disk: FakeFilesystem) -> None:
    archive = make(nodejs={"source": "archive", "version": "22.0.0", "sha256": "0" * 64})
    assert nodejs_install.comes_by_apt(FakeHost(), make())
    assert not nodejs_install.comes_by_apt(FakeHost(), archive)
    lay_out(disk, {"/usr/bin/node": ""}, 0o755)
    assert not nodejs_install.comes_by_apt(FakeHost(), make())
    by_apt, beside = (
        next(step for step in declared(nodejs_by_apt=it) if step.name == "nodejs-install") for it in (True, False)
    )
    assert ("packages" in by_apt.after, "apt" in by_apt.exclusive_resources) == (True, True)
    assert ("packages" in beside.after, "apt" in beside.exclusive_resources) == (False, False)


def test_what_dpkg_was_doing_is_finished_first(disk: FakeFilesystem) -> None:
    host = FakeHost()
    lay_out(disk, {"/var/lib/dpkg/updates/0003": ""})
    apt.install(host, ["jq"])
    assert host.calls[0][:3] == ("dpkg", "--configure", "-a")


@pytest.mark.parametrize(
    ("state", "ready"),
    [("installed", True), ("triggers-pending", True), ("unpacked", False), ("half-configured", False)],
)
def test_a_dockerd_that_dpkg_has_only_unpacked_is_none_of_the_image(
    state: str, ready: bool, disk: FakeFilesystem
) -> None:
    status = f"Package: git\nStatus: install ok installed\n\nPackage: docker.io\nStatus: install ok {state}\n"
    lay_out(disk, {"/usr/sbin/dockerd": ""}, 0o755)
    lay_out(disk, {"/var/lib/dpkg/status": status})
    assert docker.is_in_image(FakeHost()) is ready
    lay_out(disk, {"/var/lib/dpkg/updates/0001": ""})
    assert not docker.is_in_image(FakeHost())


def test_a_repository_counts_for_its_own_key_alone() -> None:
    section = {"uri": "http://192.0.2.1/debian", "suite": "stable", "key": KEY}
    chosen = make(packages={"apt": section}).packages.apt
    assert chosen is not None
    repository = apt.Repository.from_config(chosen)
    assert (repository.write(), repository.write()) == (True, False)
    key, entry = repository.paths()
    assert files.read_text(entry) == f"deb [signed-by={key}] http://192.0.2.1/debian stable main\n"
    # apt reads both as its user _apt
    assert [os.stat(path).st_mode & 0o777 for path in (key, entry)] == [0o644, 0o644]


def test_one_repository_named_twice_is_one_to_apt() -> None:
    section = {"uri": "http://192.0.2.1/debian", "suite": "stable", "key": KEY}
    both = packages.repositories(make(packages={"apt": section}, agent={"apt": section}))
    assert len({repository.paths() for repository in both}) == 1


def test_one_repository_with_two_keys_is_named_before_anything_is_done() -> None:
    section = {"uri": "http://192.0.2.1/debian", "suite": "stable", "key": KEY}
    with pytest.raises(ConfigError, match=r"sammy\.agent\.apt\.key differs from sammy\.packages\.apt\.key"):
        make(packages={"apt": section}, agent={"apt": {**section, "key": KEY.replace("x", "y")}})


def test_a_download_goes_on_to_the_next_source_and_hides_what_an_address_carries() -> None:
    host = FakeHost()
    host.script(["/usr/lib/apt/apt-helper"], 100, stderr="E: Failed to fetch  Hash Sum mismatch\n")
    urls = ["http://name:secret@192.0.2.1/a", "http://192.0.2.2/a"]
    with pytest.raises(StepFailed) as failure:
        apt.download(host, urls, "/opt/a", "SHA256:" + "0" * 64)
    assert "secret" not in str(failure.value)
    assert "192.0.2.1/a" in str(failure.value) and "192.0.2.2/a" in str(failure.value)
    assert "Hash Sum mismatch" in str(failure.value)


@pytest.mark.parametrize(
    ("words", "transient"),
    [
        ("E: Failed to fetch http://192.0.2.1/x  Could not connect to 192.0.2.1:80, connection timed out", True),
        ("E: Failed to fetch http://192.0.2.1/x  503  Service Unavailable [IP: 192.0.2.1 80]", True),
        ("E: Failed to fetch http://192.0.2.1/x  404  Not Found [IP: 192.0.2.1 80]", False),
        ("E: Unable to locate package jqq", False),
        ("E: Failed to fetch http://192.0.2.1/x  Hash Sum mismatch", False),
    ],
)
def test_what_may_pass_is_told_from_what_will_not(words: str, transient: bool) -> None:
    host = FakeHost()
    host.script(["apt-get"], 100, stderr=words + "\n")
    with pytest.raises(StepFailed) as failure:
        apt.install(host, ["jq"])
    assert failure.value.transient is transient


def test_daemon_json_keeps_what_stood_there_and_the_configuration_has_the_last_word() -> None:
    wanted = make(docker={"daemon": {"live-restore": False, "dns": ["192.0.2.53"]}})
    text = docker.daemon_json('{"bip": "192.168.9.1/24"}', wanted)
    assert json.loads(text) == {
        "bip": "192.168.9.1/24",
        "cgroup-parent": "sammy-containers.slice",
        "dns": ["192.0.2.53"],
        "live-restore": False,
        "log-driver": "journald",
    }
    assert docker.daemon_json(text, wanted) == text


def test_each_docker_option_is_its_key_and_docker_daemon_wins() -> None:
    options = {
        "dns": ["192.0.2.53", "2001:db8::53"],
        "log_tag": "{{.Name}}",
        "address_pools": ["172.30.0.0/16:24", "fd00:1::/48:64"],
        "registry_mirrors": ["https://192.0.2.7"],
        "live_restore": False,
    }
    assert json.loads(docker.daemon_json(None, make(docker=options))) == {
        "cgroup-parent": "sammy-containers.slice",
        "default-address-pools": [{"base": "172.30.0.0/16", "size": 24}, {"base": "fd00:1::/48", "size": 64}],
        "dns": ["192.0.2.53", "2001:db8::53"],
        "live-restore": False,
        "log-driver": "journald",
        "log-opts": {"tag": "{{.Name}}"},
        "registry-mirrors": ["https://192.0.2.7"],
    }
    over = {"live-restore": True, "dns": ["192.0.2.99"], "log-driver": "local"}
    keys = json.loads(docker.daemon_json(None, make(docker={**options, "daemon": over})))
    assert over.items() <= keys.items()


def daemon_keys() -> dict[str, Any]:
    keys: dict[str, Any] = json.loads(files.read_text(docker.DAEMON_JSON) or "")
    return keys


def test_an_option_that_is_taken_back_takes_its_key_with_it_and_nobody_elses(disk: FakeFilesystem) -> None:
    host = FakeHost()
    lay_out(disk, {docker.DAEMON_JSON: '{"bip": "192.168.9.1/24"}'})
    host.script(SHOW, stdout="ActiveState=inactive\n")
    docker.write_daemon_json(host, make(docker={"dns": ["192.0.2.53"], "registry_mirrors": ["https://192.0.2.7"]}))
    lay_out(disk, {docker.DAEMON_JSON: json.dumps({**daemon_keys(), "dns": ["192.0.2.1"]})})  # an operator's change
    plain = make()
    docker.write_daemon_json(host, plain)
    assert (daemon_keys()["bip"], daemon_keys()["dns"]) == ("192.168.9.1/24", ["192.0.2.1"])
    assert "registry-mirrors" not in daemon_keys()
    before = contents(disk)
    with read_only("/"):
        docker.write_daemon_json(host, plain)
    assert contents(disk) == before


def test_a_power_cut_before_the_note_of_our_keys_is_made_good_by_the_next_run() -> None:
    host, wanted = FakeHost(), make(docker={"dns": ["192.0.2.53"]})
    host.script(SHOW, stdout="ActiveState=inactive\n")
    docker.write_daemon_json(host, wanted)
    os.unlink(docker.WRITTEN)
    assert docker.already_done(host, wanted) is None
    docker.write_daemon_json(host, wanted)
    docker.write_daemon_json(host, make())
    assert "dns" not in daemon_keys()


@pytest.mark.parametrize("path", ["/etc", "/var", "/run"])
def test_a_disk_that_cannot_be_written_leaves_daemon_json_and_the_note_of_its_keys_in_step(
    path: str, disk: FakeFilesystem
) -> None:
    host, before, wanted = FakeHost(), make(docker={"dns": ["192.0.2.53"]}), make(docker={"dns": ["192.0.2.54"]})
    host.script(SHOW, stdout="ActiveState=active\nInvocationID=one\n")
    docker.write_daemon_json(host, before)
    os.unlink(docker.RESTART_NEEDED)
    with read_only(path), pytest.raises(OSError, match="Read-only file system"):
        docker.write_daemon_json(host, wanted)
    with disk_full(disk), contextlib.suppress(OSError):
        docker.write_daemon_json(host, wanted)
    assert not [name for name in contents(disk) if name.endswith(".new")]
    docker.write_daemon_json(host, wanted)
    assert daemon_keys()["dns"] == ["192.0.2.54"]
    assert files.read_text(docker.RESTART_NEEDED) == "one\n", "dockerd has read neither"
    docker.write_daemon_json(host, make())
    assert "dns" not in daemon_keys(), "it is still known to be ours"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("dns", "300.0.0.1"),
        ("address_pools", "172.30.0.1/16:24"),
        ("address_pools", "172.30.0.0/16:8"),
        ("address_pools", "172.30.0.0/16:33"),
        ("registry_mirrors", "https://name:secret@192.0.2.7"),
        ("registry_mirrors", "https://192.0.2.7/path"),
    ],
)
def test_what_dockerd_would_not_start_with_is_named_before_anything_is_done(option: str, value: str) -> None:
    with pytest.raises(ConfigError, match=rf"sammy\.docker\.{option}"):
        make(docker={option: [value]})


def test_a_broken_daemon_json_is_named_and_left_alone() -> None:
    with pytest.raises(StepFailed, match=r"daemon\.json is not JSON"):
        docker.daemon_json("{", make())


def test_docker_is_restarted_only_when_it_has_not_read_its_configuration() -> None:
    host = FakeHost()
    host.script(SHOW, stdout="ActiveState=active\nInvocationID=one\n")
    docker.write_daemon_json(host, make())
    assert files.read_text(docker.RESTART_NEEDED) == "one\n"
    host.script(SHOW, stdout="ActiveState=active\nInvocationID=two\n")
    assert docker_restart.already_done(host, make()) == "Docker started with the current configuration"


def test_a_first_start_of_docker_needs_no_restart() -> None:
    host = FakeHost()
    host.script(SHOW, stdout="ActiveState=inactive\nInvocationID=\n")
    docker.write_daemon_json(host, make())
    assert not os.path.exists(docker.RESTART_NEEDED)
    assert docker_restart.already_done(host, make()) is not None


@pytest.mark.parametrize("source", ["none"])
def test_what_is_not_wanted_is_skipped_with_the_key_that_says_so(source: str) -> None:
    host = FakeHost()
    assert docker.already_done(host, make(docker={"source": source})) == "docker.source is none"
    assert nodejs_install.already_done(host, make(nodejs={"source": source})) == "nodejs.source is none"
    assert agent_install.already_done(host, make(agent={"source": source})) == "agent.source is none"
    reason = devcontainer_cli.already_done(host, make(devcontainer_cli={"source": source}))
    assert reason == "devcontainer_cli.source is none"


def test_an_unpinned_devcontainer_cli_is_not_fetched_and_says_what_is_missing() -> None:
    reason = devcontainer_cli.already_done(FakeHost(), make())
    assert reason == "devcontainer_cli.version and devcontainer_cli.integrity are not set"


def test_the_agents_configuration_holds_no_secret_and_points_to_the_file() -> None:
    plane = {"url": "https://192.0.2.1:8787", "token_file": "/etc/sammy/token", "ca_file": "/etc/sammy/ca.crt"}
    document = json.loads(agent_install.agent_config(make(node_id="node-7", control_plane=plane)))
    assert document == {
        "node_id": "node-7",
        "control_plane_url": plane["url"],
        "token_file": plane["token_file"],
        "ca_file": plane["ca_file"],
        "port": 8443,
        "debug_push": True,
    }


def test_an_agent_that_must_be_there_and_is_not_says_the_ways_out() -> None:
    host = FakeHost()
    installed(host)
    with pytest.raises(StepFailed, match=r"agent\.source is \"installed\".*agent\.source deb, url or apt"):
        agent_install.run(host, make(agent={"source": "installed"}))


def test_daily_upgrades_are_set_only_where_it_is_asked_for_and_left_again(disk: FakeFilesystem) -> None:
    host = FakeHost()
    lay_out(disk, {LISTS: ""})
    installed(host, "unattended-upgrades")
    for choice, value in (("on", "1"), ("off", "0")):
        wanted = make(packages={"install": [], "unattended_upgrades": choice}, docker={"source": "none"},
                      nodejs={"source": "none"}, agent={"source": "none"})  # fmt: skip
        assert packages.already_done(host, wanted) is None
        packages.run(host, wanted)
        assert f'APT::Periodic::Unattended-Upgrade "{value}";' in (files.read_text(packages.UNATTENDED) or "")
        assert packages.verify(host, wanted) and packages.already_done(host, wanted) is not None
    assert packages.own(make(packages={"install": [], "unattended_upgrades": "on"})) == ["unattended-upgrades"]
    packages.run(host, make(packages={"install": []}, docker={"source": "none"}))
    assert not os.path.exists(packages.UNATTENDED)


def test_journald_left_as_it_was_loses_our_drop_in_and_a_restart_that_failed_is_made_good() -> None:
    host, keep = FakeHost(), make(journald={"storage": "keep"})
    assert journald_config.already_done(host, keep) == "journald.storage is keep"
    journald_config.run(host, make())
    before = files.read_text(journald_config.DROP_IN)
    host.script(["systemctl", "restart"], 1, stderr="a fault\n")
    for wanted in (keep, make(journald={"system_max_use": "1G"})):
        with pytest.raises(CommandFailed):
            journald_config.run(host, wanted)
        assert files.read_text(journald_config.DROP_IN) == before
        assert journald_config.already_done(host, wanted) is None
    host.script(["systemctl", "restart"])
    journald_config.run(host, keep)
    assert not os.path.exists(journald_config.DROP_IN)


def test_a_firewall_that_was_lifted_stays_so_and_says_by_whom(disk: FakeFilesystem) -> None:
    lay_out(disk, {"/var/lib/sammy/firewall/removed": "Lifted by the agent: it kept the control plane out.\n"})
    assert firewall.already_done(FakeHost(), make()) == "Lifted by the agent: it kept the control plane out."


def test_rules_that_are_no_longer_wanted_are_work_to_do(disk: FakeFilesystem) -> None:
    off = make(firewall={"enabled": False}, metadata_block={"enabled": False})
    host = FakeHost()
    assert firewall.already_done(host, off) == "firewall.enabled is false"
    assert metadata_block.already_done(host, off) == "metadata_block.enabled is false"
    lay_out(disk, {"/var/lib/sammy/firewall/applied.nft": "", metadata_block.DROP_IN: ""})
    assert (firewall.already_done(host, off), metadata_block.already_done(host, off)) == (None, None)


@pytest.mark.parametrize(
    ("shown", "reloads"), [("169.254.169.254/32 fd00:ec2::254/128\n", 0), ("\n", 1), ("169.254.169.254/32\n", 1)]
)
def test_all_units_are_read_anew_only_where_the_slice_does_not_deny_the_addresses_yet(
    shown: str, reloads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata_table, "apply", lambda *_: None)
    host = FakeHost()
    host.script(["systemctl", "show", metadata_block.SLICE], stdout=shown)
    metadata_block.run(host, make())
    assert host.calls.count(("systemctl", "daemon-reload")) == reloads
