# SPDX-License-Identifier: Apache-2.0
"""`sammy firewall VERB` from the words typed to the words printed, over an iptables in memory and a fake disk.

Exit status: 0 all is as it should be, 1 it is not or could not be done, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from pyfakefs.fake_filesystem import FakeFilesystem

from cc_sammy.contract.firewall_config import FirewallConfig
from cc_sammy.errors import BootCode, SammyError
from cc_sammy.firewall import __main__ as program
from cc_sammy.firewall import (
    boot_files,
    cloudflare_refresh,
    commands,
    dry_run,
    metadata_table,
    rollback,
    settings_cache,
)
from cc_sammy.firewall.backends import iptables
from cc_sammy.firewall.model import networks, nft_table
from cc_sammy.firewall.model.policy import READY, from_config
from tests.firewall_config import METADATA, firewall_config
from tests.unit.firewall.fake_iptables import EMPTY, RECORDED, Iptables

PORT = 8443
CONFIG = firewall_config(backend="iptables", allow=("203.0.113.0/24", "2001:db8::/32"), ssh="open")
NOW = 1_893_456_000.0  # 2030-01-01 00:00:00 UTC


class Said(NamedTuple):
    """What a verb's run showed."""

    status: int
    out: str
    err: str

    @property
    def facts(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        return found


Sammy = Callable[..., Said]


@pytest.fixture
def host(fs: FakeFilesystem, monkeypatch: pytest.MonkeyPatch) -> Iptables:
    """A machine whose rules need no trial."""
    fs.create_file(iptables.HAS_IPV6)
    fs.create_dir(boot_files.FOLDER)
    monkeypatch.setattr(dry_run, "check_once", lambda *_: [])
    monkeypatch.setattr(time, "time", lambda: NOW)
    return Iptables()


@pytest.fixture
def sammy(host: Iptables, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Sammy:
    """Return the firewall's program over that machine; `config` is what the configuration says."""

    def run(*words: str, config: FirewallConfig = CONFIG) -> Said:
        monkeypatch.setattr(program, "Host", lambda: host)
        monkeypatch.setattr(settings_cache, "load", lambda environment: (config, PORT))
        status = program.main(words)
        return Said(status, *capsys.readouterr())

    return run


def test_apply_enforces_and_says_what_it_guards(sammy: Sammy, host: Iptables) -> None:
    said = sammy("apply")
    assert (said.status, said.err) == (0, "")
    assert said.out == "applied and read back: agent port 8443 guarded, ssh open\n"
    assert "-A SAMMY -s 203.0.113.0/24 -p tcp -m tcp --dport 8443 -c 0 0 -j ACCEPT" in host.tables["iptables-nft"]
    facts = sammy("apply", "--json").facts
    assert facts == {"verb": "apply", "ok": True, "agent_port": 8443, "ssh": "open", "backend": "iptables", "notes": []}


@pytest.mark.parametrize(
    ("ssh", "acknowledged", "words"),
    [
        ("drop", False, "ssh open until the control plane acknowledges this node"),
        ("drop", True, "ssh closed"),
        ("drop-always", False, "ssh closed"),
        (("198.51.100.0/24",), False, "ssh open to the listed networks"),
    ],
)
def test_apply_says_who_may_reach_ssh(
    sammy: Sammy, fs: FakeFilesystem, ssh: Any, acknowledged: bool, words: str
) -> None:
    if acknowledged:
        fs.create_file(READY)
    assert words in sammy("apply", config=CONFIG._replace(ssh=ssh)).out


def test_apply_tells_what_others_still_close(sammy: Sammy, host: Iptables) -> None:
    host.tables["iptables-nft"] = RECORDED["iptables-nft.closed"]
    host.script(["nft", "--json", "list", "chains"], stdout=RECORDED["chains-of-others.json"])
    said = sammy("apply")
    assert said.status == 0
    assert "note: IPv4 INPUT (iptables-nft) has policy DROP" in said.out
    assert "note: ufw is active and may still drop tcp 8443" in said.out


def test_a_firewall_that_is_switched_off_is_not_applied(sammy: Sammy, host: Iptables) -> None:
    off = CONFIG._replace(enabled=False)
    said = sammy("apply", config=off)
    assert (said.status, said.out) == (1, "")
    assert said.err == (
        "sammy firewall apply: firewall.enabled is false, so nothing was applied. Set it to true first\n"
    )
    assert host.inputs == [], "nothing was changed"
    assert sammy("apply", "--json", config=off).facts["code"] == BootCode.SAMMY.value


def test_an_error_in_json_is_an_object_too(sammy: Sammy, host: Iptables) -> None:
    host.refusals = 100
    said = sammy("apply", "--json")
    assert (said.status, said.err) == (1, "") and said.facts["ok"] is False
    assert "what was in force before still is" in said.facts["error"] and said.facts["verb"] == "apply"


def test_check_finds_nothing_then_what_changed_and_how_it_is_fixed(sammy: Sammy, host: Iptables) -> None:
    sammy("apply")
    said = sammy("check")
    assert (said.status, said.out) == (0, "the kernel holds what the configuration says\n")
    assert sammy("check", "--json").facts == {"verb": "check", "ok": True, "problems": []}
    host.tables["iptables-nft"] = EMPTY
    said = sammy("check")
    assert (said.status, said.out) == (
        1,
        "IPv4 chain SAMMY is missing: nothing it should guard is guarded\n`sammy firewall apply` fixes it.\n",
    )
    assert sammy("check", "--json").facts["next_step"] == "sammy firewall apply"


def test_check_of_a_firewall_that_is_off_finds_leftovers(sammy: Sammy) -> None:
    sammy("apply")
    said = sammy("check", config=CONFIG._replace(enabled=False))
    assert said.status == 1 and "firewall.enabled is false, yet backend iptables holds rules" in said.out
    assert said.out.endswith("`sammy firewall remove` fixes it.\n")


def test_a_metadata_block_that_is_gone_is_a_repairs(sammy: Sammy, fs: FakeFilesystem, host: Iptables) -> None:
    sammy("apply")
    fs.create_file(metadata_table.BOOT_FILE, contents=nft_table.render(metadata_table.build(METADATA, True)))
    host.script(["nft", "--json", "--numeric"], 1, stderr="Error: No such file or directory\n")
    said = sammy("check")
    assert said.status == 1 and "`sammy firewall repair` fixes it." in said.out


def test_remove_opens_until_the_next_apply_and_check_and_status_say_so(sammy: Sammy, host: Iptables) -> None:
    sammy("apply")
    said = sammy("remove")
    assert said.status == 0 and "agent port 8443 is open to all until `sammy firewall apply`" in said.out
    assert host.tables == {"iptables-nft": EMPTY, "ip6tables-nft": EMPTY}
    assert "removed by hand: nothing guards the agent port" in sammy("check").out
    status = sammy("status")
    assert status.status == 1 and "removed by hand (iptables nft)" in status.out
    assert sammy("repair").out == "nothing to repair\n", "a timer leaves it removed"
    assert sammy("apply").status == 0 and sammy("check").status == 0


def test_status_shows_what_is_loaded_and_dropped(sammy: Sammy, host: Iptables) -> None:
    sammy("apply")
    host.tables["iptables-nft"] = host.tables["iptables-nft"].replace(
        "--dport 8443 -c 0 0 -j DROP", "--dport 8443 -c 3 180 -j DROP", 1
    )
    host.script(["nft", "--json", "list", "chains"], stdout=RECORDED["chains-of-others.json"])
    said = sammy("status")
    rows = dict(line.split("  ", 1) for line in said.out.splitlines() if "  " in line)
    assert said.status == 0
    assert rows["firewall"].strip() == "loaded (iptables nft)" and rows["agent port"].strip() == "8443"
    assert rows["at boot"].strip() == "yes" and rows["networks allow4"].strip() == "1"
    assert "       3 packets: IPv4 -A SAMMY -p tcp -m tcp --dport 8443 -j DROP" in said.out
    assert "inet mine in has policy drop" in said.out and "also active" in said.out
    facts = sammy("status", "--json").facts
    assert facts["loaded"] and facts["enabled"] and facts["rolled_back"] is None and not facts["removed"]


def test_status_before_any_apply_is_not_loaded_and_not_well(sammy: Sammy) -> None:
    said = sammy("status")
    assert said.status == 1 and "not loaded (iptables nft)" in said.out
    assert sammy("status", config=CONFIG._replace(enabled=False)).status == 0, "as configured"


def test_status_shows_what_is_loaded_with_a_wrong_configuration_too(sammy: Sammy) -> None:
    sammy("apply")
    assert "loaded (iptables nft)" in sammy("status", config=CONFIG._replace(allow=("nonsense",))).out


def test_repair_loads_only_where_the_kernel_differs(sammy: Sammy, host: Iptables) -> None:
    sammy("apply")
    host.inputs.clear()
    assert sammy("repair").out == "nothing to repair\n" and host.inputs == []
    host.tables["ip6tables-nft"] = EMPTY
    said = sammy("repair")
    assert said == (0, "repaired: IPv6 chain SAMMY is missing: nothing it should guard is guarded\n", "")
    assert sammy("check").status == 0


def test_a_lift_ends_with_its_time_and_no_repair_ends_it_sooner(
    sammy: Sammy, host: Iptables, monkeypatch: pytest.MonkeyPatch
) -> None:
    sammy("apply")
    said = sammy("lift", "--seconds", "90")
    assert said.status == 0 and "agent port 8443 is open to all for 90 s" in said.out
    assert "--datestop 2030-01-01T00:01:30" in host.tables["iptables-nft"]
    assert "agent port 8443 was lifted by hand until 2030-01-01 00:01:30 UTC" in sammy("check").out
    said = sammy("repair")
    assert said.out == "lifted by hand until 2030-01-01 00:01:30 UTC; `sammy firewall apply` ends it\n"
    assert "--datestop" in host.tables["iptables-nft"]
    monkeypatch.setattr(time, "time", lambda: NOW + 91)
    sammy("repair")
    assert "--datestop" not in host.tables["iptables-nft"] and sammy("check").status == 0


def test_a_trial_is_ended_by_a_repair(sammy: Sammy, host: Iptables) -> None:
    sammy("apply")
    assert sammy("trial", "60", "--json").facts == {"verb": "trial", "ok": True, "seconds": 60}
    assert "--datestop 2030-01-01T00:01:00" in host.tables["iptables-nft"]
    assert sammy("repair").out.startswith("repaired: ") and "--datestop" not in host.tables["iptables-nft"]


@pytest.mark.parametrize("seconds", [0, -5, 901])
def test_a_lift_has_bounds(sammy: Sammy, host: Iptables, seconds: int) -> None:
    sammy("apply")
    said = sammy("lift", "--seconds", str(seconds))
    assert said.status == 1
    assert said.err == f"sammy firewall lift: a lift of {seconds} s is not possible. Choose 1 to 900 seconds\n"
    assert "--datestop" not in host.tables["iptables-nft"]


@pytest.mark.parametrize("verb", ["lift", "mark-known-good", "vouch", "roll-back"])
def test_without_a_firewall_there_is_nothing_to_lift(sammy: Sammy, verb: str) -> None:
    words = "the firewall is not in use here, so there is nothing to lift. `sammy firewall status` says why"
    assert words in sammy(verb, config=CONFIG._replace(enabled=False)).err
    sammy("apply")
    sammy("remove")
    assert words in sammy(verb).err


def test_rules_that_are_not_in_force_are_not_lifted_nor_called_good(sammy: Sammy, host: Iptables) -> None:
    sammy("apply")
    host.tables["iptables-nft"] = EMPTY
    said = sammy("lift")
    assert said.status == 1 and "there is nothing to lift. Run a repair first" in said.err
    said = sammy("mark-known-good")
    assert said.status == 1 and "other rules than these are in force" in said.err


@pytest.mark.parametrize("verb", ["mark-known-good", "vouch"])
def test_a_roll_back_restores_the_good_rules_and_apply_tries_the_others_again(
    sammy: Sammy, host: Iptables, verb: str
) -> None:
    sammy("apply")
    said = sammy(verb)
    assert said == (0, "the rules in force are stored as known good\n", "")
    good, others = dict(host.tables), CONFIG._replace(allow=("198.51.100.0/24",))
    sammy("apply", config=others)
    said = sammy("roll-back", config=others)
    assert said.status == 0 and said.out.startswith("back to the previous rules, because the control plane no longer")
    assert host.tables == good
    assert "the agent went back to the previous rules" in sammy("check", config=others).out
    status = sammy("status", config=others)
    assert "rolled back" in status.out and "`sammy firewall apply` tries the configured rules again" in status.out
    assert sammy("repair", config=others).out == "nothing to repair\n" and host.tables == good
    sammy("apply", config=others)
    assert sammy("check", config=others).status == 0 and host.tables != good


def test_a_roll_back_without_good_rules_lifts_and_says_who_did(sammy: Sammy, host: Iptables) -> None:
    sammy("apply")
    said = sammy("roll-back", "--json")
    assert said.status == 0 and said.facts["rolled_back"]["restored"] is False
    assert host.tables["iptables-nft"] == EMPTY
    assert "lifted by the agent: nothing guards the agent port" in sammy("check").out


def test_refresh_has_nothing_to_fetch_for_listed_networks(sammy: Sammy) -> None:
    assert sammy("refresh") == (0, "firewall.allow is not cloudflare: nothing to fetch\n", "")


@pytest.mark.parametrize("allow", ["cloudflare", ("cloudflare", "203.0.113.0/24")])
def test_refresh_applies_what_it_fetched_where_that_is_not_in_force(
    sammy: Sammy, host: Iptables, monkeypatch: pytest.MonkeyPatch, allow: Any
) -> None:
    asked: list[str] = []

    def refresh(url: str, now: float) -> tuple[Any, bool]:
        asked.append(url)
        return SimpleNamespace(networks=networks.CLOUDFLARE), len(asked) == 1

    monkeypatch.setattr(cloudflare_refresh, "refresh", refresh)
    config = CONFIG._replace(allow=allow)
    assert sammy("refresh", config=config).out == "Cloudflare's networks are changed, now in force\n"
    assert "-s 173.245.48.0/20 " in host.tables["iptables-nft"] and asked == [config.ranges_url]
    said = sammy("refresh", "--json", config=config)
    assert said.facts == {"verb": "refresh", "ok": True, "changed": False, "applied": False,
                          "networks": len(networks.CLOUDFLARE), "notes": []}  # fmt: skip
    host.tables["iptables-nft"] = EMPTY
    assert sammy("refresh", config=config).out == "Cloudflare's networks are unchanged, now in force\n"
    sammy("remove", config=config)
    assert sammy("refresh", config=config).out == "Cloudflare's networks are unchanged\n", "removed stays removed"


def test_help_lists_the_verbs_for_people_alone(sammy: Sammy, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        sammy("--help")
    said = capsys.readouterr().out
    assert left.value.code == 0
    assert all(verb in said for verb in commands.VERBS)
    assert not any(verb in said for verb in ("vouch", "roll-back", "mark-known-good"))


@pytest.mark.parametrize(
    "words", [(), ("nonsense",), ("apply", "--jsn"), ("lift", "--seconds", "soon"), ("trial", "x")]
)
def test_wrong_words_are_2_and_change_nothing(
    sammy: Sammy, host: Iptables, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    with pytest.raises(SystemExit) as left:
        sammy(*words)
    assert left.value.code == 2 and "usage:" in capsys.readouterr().err and host.calls == []


def test_a_verb_that_nobody_knows_is_2(host: Iptables, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.run(argparse.Namespace(firewall_verb="open", json=False), host, CONFIG, PORT) == 2
    assert "unknown verb; choose from apply, check, status" in capsys.readouterr().err


def test_the_command_sammy_has_the_same_verbs() -> None:
    parser = argparse.ArgumentParser()
    commands.add_parser(parser.add_subparsers())
    parsed = parser.parse_args(["firewall", "lift", "--json"])
    assert (parsed.firewall_verb, parsed.json, parsed.seconds) == ("lift", True, commands.LIFT_SECONDS)


def test_a_wrong_configuration_is_said_before_anything_is_done(
    host: Iptables, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(environment: object) -> tuple[FirewallConfig, int]:
        raise SammyError("firewall.allow: 10.0.0.0/40 is not a network", "Correct it")

    monkeypatch.setattr(program, "Host", lambda: host)
    monkeypatch.setattr(settings_cache, "load", load)
    monkeypatch.setattr("sys.argv", ["firewall", "apply"])
    assert program.main() == 1
    said = capsys.readouterr()
    assert said.err == "sammy firewall: firewall.allow: 10.0.0.0/40 is not a network. Correct it\n" and not said.out
    assert host.calls == []


def test_good_rules_are_kept_as_they_are_configured(sammy: Sammy) -> None:
    sammy("apply")
    sammy("mark-known-good")
    with open(rollback.KNOWN_GOOD, encoding="utf-8") as file:
        assert rollback.from_text(file.read()) == from_config(CONFIG, PORT)
