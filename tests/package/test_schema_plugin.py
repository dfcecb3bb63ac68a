# SPDX-License-Identifier: Apache-2.0
"""The schema plugin in real cloud-init boots: the stages run by command, with a NoCloud seed.

Bookworm's 22.4 takes any top-level key and is told of ours; trixie's 25.1 calls it an error without the plugin.
"""

from __future__ import annotations

import json

import pytest

from tests.package.chroot import Chroot

pytestmark = pytest.mark.needs("root")

BOTH = pytest.mark.parametrize("chroot", ["bookworm", "trixie"], indirect=True)
TRIXIE = pytest.mark.parametrize("chroot", ["trixie"], indirect=True)
GOOD = "#cloud-config\nsammy:\n  node_id: node-7\n  firewall: {allow: [192.0.2.0/24]}\n"
OFF = "/etc/cloud/sammy-no-schema"


def complaints(chroot: Chroot, user_data: str) -> list[str]:
    """Boot cloud-init's first two stages with the user-data; return what its validation said."""
    seed = "/var/lib/cloud/seed/nocloud"
    chroot.write(f"{seed}/user-data", user_data)
    chroot.write(f"{seed}/meta-data", "instance-id: i-1\n")
    chroot.write(
        "/etc/cloud/cloud.cfg.d/99-test.cfg",
        "datasource_list: [NoCloud]\nnetwork: {config: disabled}\ncloud_init_modules: []\n",
    )
    chroot.run(["cloud-init", "init", "--local"], check=False)
    chroot.run(["cloud-init", "init"], check=False)
    log = (chroot.read("/var/log/cloud-init.log") or "").splitlines()
    assert any("consume-user-data: SUCCESS" in line for line in log), "\n".join(log[-20:])
    words = ("Invalid cloud-config", "failed schema validation", "Failed to register handler", "Traceback")
    return [line for line in log if any(word in line for word in words)]


@BOTH
def test_key_is_known(installed: Chroot) -> None:
    assert complaints(installed, GOOD) == []
    log = installed.read("/var/log/cloud-init.log") or ""
    assert "text/x-sammy-config" in log  # the plugin was there


@BOTH
@pytest.mark.parametrize("empty", ["sammy:\n", "sammy: {}\n"])
def test_empty_key_is_known(installed: Chroot, empty: str) -> None:
    assert complaints(installed, f"#cloud-config\n{empty}") == []


@BOTH
@pytest.mark.parametrize(
    "wrong",
    ["sammy: {stepz: 1}\n", "sammy: {agent: {port: zero}}\n", "sammy: 7\n", "sammy: {}\nruncmd: 7\n"],
    ids=["unknown key", "wrong type", "no mapping", "another module's key"],
)
def test_wrong_key_is_still_reported(installed: Chroot, wrong: str) -> None:
    assert complaints(installed, f"#cloud-config\n{wrong}")


@TRIXIE
def test_unknown_top_level_key_is_still_reported(installed: Chroot) -> None:
    assert complaints(installed, "#cloud-config\nsamy: {}\n")


@TRIXIE
def test_without_the_plugin_the_key_is_an_error(installed: Chroot) -> None:
    installed.write(OFF, "")
    assert complaints(installed, GOOD)


@BOTH
def test_broken_schema_leaves_cloud_init_as_it_was(installed: Chroot) -> None:
    installed.write("/usr/lib/python3/dist-packages/cc_sammy/contract/schema.json", "{")
    said = complaints(installed, "#cloud-config\nruncmd: [ls]\n")
    assert said == []


@BOTH
def test_definition_is_plain_json_schema_for_cloud_inits_validator(installed: Chroot) -> None:
    program = """
import json, sys
sys.path.insert(0, "/var/lib/cloud/handlers")
import sammy_schema
from cloudinit.config import schema
whole = schema.get_schema()
validator, _ = schema.get_jsonschema_validator()
ours = whole["$defs"]["cc_sammy"]
validator.check_schema(ours)
print(json.dumps([ours, len([r for r in whole["allOf"] if r == {"$ref": "#/$defs/cc_sammy"}])]))
"""
    ours, references = json.loads(installed.run(["python3", "-c", program]).stdout)
    assert references == 1
    assert "firewall" in ours["properties"]["sammy"]["properties"]
    text = json.dumps(ours)
    assert '"x-' not in text and "$schema" not in text
