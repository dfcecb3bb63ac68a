# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ast
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from cc_sammy import config
from sammy_agent.base.errors import ControlPlaneError
from sammy_agent.base.wire.ids import is_id
from sammy_agent.cli.main import main
from sammy_agent.control_plane import certificate_authority, node_schema, server, user_data
from sammy_agent.control_plane.storage.database import Store

KEY = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQINBF: a text with a colon\n-----END PGP PUBLIC KEY BLOCK-----\n"


@pytest.mark.parametrize(
    ("age", "status", "health"),
    [
        (0, "running", "healthy"),
        (180, "running", "healthy"),
        (181, "running", "stale"),
        (360, "running", "stale"),
        (361, "running", "unhealthy"),
        (None, "running", "stale"),
        (None, "creating", "unhealthy"),
        (5, "creating", "healthy"),
        (-30, "running", "healthy"),  # our clock was set back
    ],
)
def test_health_is_the_age_of_the_last_heartbeat(age: float | None, status: str, health: str) -> None:
    row = {"status": status, "stale_after_s": 180, "last_heartbeat_at": None if age is None else 1000.0 - age}
    assert node_schema.health(row, 1000.0) == health


def test_a_nodes_words_do_not_steer_the_terminal() -> None:
    row = {
        "id": "n1", "status": "creating", "stale_after_s": 180, "last_heartbeat_at": None, "ip_address": None,
        "metrics": None, "created_at": 0.0, "updated_at": 0.0, "ready_at": None, "agent_version": None,
        "agent_port": None, "reachable": None, "reachable_at": None, "unreachable_why": None,
        "provisioning": json.dumps({"outcome": "failed", "reason": "\x1b[2Jall is well\r\n"}),
    }  # fmt: skip
    (_, shown) = node_schema.format_table(node_schema.table_rows([node_schema.to_json(row, 0.0)], 0.0))
    assert shown.endswith("  failed   -          [2Jall is well")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A control plane's state as a server leaves it behind."""
    folder = tmp_path / "state"
    server.open_folder(str(folder))
    store = Store(str(folder), create=True)
    store.set_setting("url", "https://192.0.2.7:8787")
    store.set_setting("names", "192.0.2.7 localhost plane.example")
    store.close()
    return folder


def add_node(state: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["add-node", *arguments, "--state", str(state)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("#cloud-config\n")
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def test_add_nodes_user_data_is_what_cc_sammy_takes(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = add_node(state, capsys, "n1")
    loaded = config.load(document["sammy"])
    assert loaded.node_id == "n1" and loaded.control_plane.url == "https://192.0.2.7:8787"
    assert loaded.firewall.allow == ("192.0.2.7/32",)
    written = {entry["path"]: entry for entry in document["write_files"]}
    token = written[loaded.control_plane.token_file]
    assert token["permissions"] == "0600" and token["content"].count(".") == 2
    assert written[loaded.control_plane.ca_file]["content"] == (state / "ca.crt").read_text()
    assert set(document) == {"write_files", "sammy"}


def test_add_node_for_a_stock_image(state: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "key.asc").write_text(KEY)
    document = add_node(
        state, capsys, "n1", "--stock", "--apt-source", "deb https://192.0.2.7/apt stable main", "--apt-key",
        str(tmp_path / "key.asc"),
    )  # fmt: skip
    assert "sammy" not in document, "cloud-init's own schema would call the key unknown"
    files = {entry["path"]: entry for entry in document["write_files"]}
    source = files["/etc/apt/sources.list.d/sammy.list"]["content"]
    assert source == "deb [signed-by=/etc/apt/keyrings/sammy.asc] https://192.0.2.7/apt stable main\n"
    assert files["/etc/apt/keyrings/sammy.asc"]["content"] == KEY
    assert document["packages"] == ["cloud-init-sammy"]
    assert document["runcmd"] == [["cloud-init", "single", "--name", "sammy", "--frequency", "always"]]
    (inner,) = [entry for entry in document["write_files"] if entry["path"].startswith("/etc/cloud/cloud.cfg.d/")]
    assert config.load(yaml.safe_load(inner["content"])["sammy"]).node_id == "n1"


def test_add_node_merges_more_options(state: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    more = tmp_path / "more.yaml"
    more.write_text("sammy: {docker: {source: none}, firewall: {ssh: open}}")
    document = add_node(
        state, capsys, "--sammy", str(more), "--url", "https://plane.example:1", "--allow", "10.0.0.0/8"
    )
    loaded = config.load(document["sammy"])
    assert loaded.docker.source == "none" and loaded.firewall.ssh == "open"
    assert loaded.firewall.allow == ("10.0.0.0/8",), "mappings are merged, not replaced"
    assert loaded.control_plane.url == "https://plane.example:1" and is_id(loaded.node_id)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bad id!"], "invalid node id"),
        (["n1", "--url", "https://elsewhere.example"], "certificate does not hold elsewhere.example"),
        (["n1", "--url", "http://192.0.2.7"], "https://HOST:PORT"),
        (["n1", "--allow", "300.1.1.1"], "--allow"),
        (["n1", "--stock"], "needs --apt-source"),
        (["n1", "--sammy", "/nonexistent"], "no such file"),
        (["n1", "--token-life", "0"], "more than 0"),
    ],
)
def test_add_node_says_what_is_wrong_and_adds_nothing(
    state: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert main(["add-node", *arguments, "--state", str(state)]) == 1
    shown = capsys.readouterr()
    assert words in shown.err and shown.out == ""
    store = Store(str(state))
    assert store.nodes() == []
    store.close()


def test_a_known_node_is_not_overwritten_by_chance(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = add_node(state, capsys, "n1")
    assert main(["add-node", "n1", "--state", str(state)]) == 1
    assert "there is a node n1 already" in capsys.readouterr().err
    assert add_node(state, capsys, "n1", "--replace") != first


def test_nodes_are_listed_and_removed(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_node(state, capsys, "n1")
    assert main(["control-plane", "nodes", "--state", str(state)]) == 0
    heading, row = capsys.readouterr().out.splitlines()
    assert heading.split("  ")[0] == "NODE" and row.split() == ["n1", "creating", "unhealthy", "never", "-", "-"]
    assert main(["control-plane", "--state", str(state), "nodes", "--json"]) == 0
    assert [node["id"] for node in json.loads(capsys.readouterr().out)["nodes"]] == ["n1"]
    assert main(["control-plane", "remove-node", "n1", "--state", str(state)]) == 0
    assert main(["control-plane", "remove-node", "n1", "--state", str(state)]) == 1
    assert main(["control-plane", "nodes", "--state", str(state)]) == 0
    assert "no nodes yet" in capsys.readouterr().out


def test_verbs_without_a_state_make_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["control-plane", "nodes", "--state", str(tmp_path / "none")]) == 1
    assert "no control plane has run there yet" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("listen", ["8787", "127.0.0.1:", "127.0.0.1:99999", ":8787"])
def test_a_wrong_listen_address_is_said(listen: str) -> None:
    with pytest.raises(ControlPlaneError, match="HOST:PORT"):
        server.split_listen(listen)


def test_an_ipv6_listen_address() -> None:
    assert server.split_listen("[::1]:8787") == ("::1", 8787)


def test_the_address_of_all_addresses_needs_a_url(tmp_path: Path) -> None:
    with pytest.raises(ControlPlaneError, match="not an address that nodes can connect to"):
        server.serve("0.0.0.0:0", str(tmp_path), None, [])


def test_one_state_has_one_server(tmp_path: Path) -> None:
    with (
        server._single_instance_lock(str(tmp_path)),
        pytest.raises(ControlPlaneError, match="another control plane is running"),
    ):
        server.serve("127.0.0.1:0", str(tmp_path), None, [])


def test_the_server_certificate_is_kept_until_it_must_change(tmp_path: Path) -> None:
    made = certificate_authority.CertificateAuthority(str(tmp_path))
    certificate, key = (Path(path) for path in made.server_files(["localhost", "127.0.0.1"]))
    first = certificate.read_text()
    again = certificate_authority.CertificateAuthority(str(tmp_path))
    again.server_files(["127.0.0.1", "localhost"])
    assert certificate.read_text() == first and again.fingerprint() == made.fingerprint()
    again.server_files(["127.0.0.1", "localhost", "::1"])
    assert certificate.read_text() != first
    second = certificate.read_text()
    key.unlink()
    again.server_files(["127.0.0.1", "localhost", "::1"])
    assert certificate.read_text() != second


def test_user_data_reads_back_or_is_not_printed() -> None:
    with pytest.raises(ControlPlaneError, match="does not read back"):
        user_data.render({"key": ("a tuple reads back as a list",)})


def test_server_and_verbs_may_open_a_new_store_at_the_same_moment(tmp_path: Path) -> None:
    for attempt in range(10):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        together = threading.Barrier(6)

        def opens(folder: Path = folder, together: threading.Barrier = together) -> int:
            together.wait()
            store = Store(str(folder), create=True)
            try:
                return len(store.nodes())
            finally:
                store.close()

        with ThreadPoolExecutor(6) as pool:
            results = [pool.submit(opens) for _ in range(6)]
        assert [result.result() for result in results] == [0] * 6


def test_every_error_of_the_control_plane_has_a_next_step() -> None:
    """An operator reads it at night; a class of its own says its own."""
    lacking = [
        f"{path.name}:{node.lineno}"
        for path in sorted(Path(server.__file__).parent.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "ControlPlaneError" and len(node.args) < 2
    ]
    assert lacking == []
