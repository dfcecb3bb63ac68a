# SPDX-License-Identifier: Apache-2.0
"""The generated module list, with cloud-init's own code reading and merging the configuration."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from tests.package.chroot import TOP

SAMMY = ["sammy", "always"]
BASE = "cloud_final_modules:\n - scripts-user\n - [phone-home, once]\n - final-message\n"


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program, on an /etc/cloud of its own."""
    spec = importlib.util.spec_from_file_location("update_modules", TOP / "packaging/cloud-init/update_modules.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "cloud.cfg.d").mkdir()
    (tmp_path / "cloud.cfg").write_text(BASE)
    monkeypatch.setattr(module, "BASE", str(tmp_path / "cloud.cfg"))
    monkeypatch.setattr(module, "OURS", str(tmp_path / "cloud.cfg.d/95-sammy.cfg"))
    return module


def generated(program: ModuleType) -> list[object] | None:
    path = Path(program.OURS)
    return yaml.safe_load(path.read_text())["cloud_final_modules"] if path.exists() else None


@pytest.mark.parametrize(
    ("modules", "wanted"),
    [
        pytest.param(["a", "final-message"], ["a", SAMMY, "final-message"], id="before final-message"),
        pytest.param(["a", "final_message"], ["a", SAMMY, "final_message"], id="Ubuntu's spelling"),
        pytest.param(["power_state_change", "a"], [SAMMY, "power_state_change", "a"], id="first of them"),
        pytest.param([["phone-home", "once"]], [SAMMY, ["phone-home", "once"]], id="with a frequency"),
        pytest.param(["a", "b"], ["a", "b", SAMMY], id="none of them"),
        pytest.param([], [SAMMY], id="empty"),
        pytest.param(["a", "sammy"], None, id="named already"),
        pytest.param([["sammy", "always"]], None, id="named already with a frequency"),
    ],
)
def test_place_in_the_list(program: ModuleType, modules: list[object], wanted: list[object] | None) -> None:
    assert program.with_sammy(modules) == wanted


def test_list_is_complete_and_written_once(program: ModuleType) -> None:
    assert program.main([]) == 0
    assert generated(program) == ["scripts-user", SAMMY, ["phone-home", "once"], "final-message"]
    before = Path(program.OURS).stat()
    assert program.main([]) == 0
    after = Path(program.OURS).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert after.st_mode & 0o777 == 0o644


def test_other_files_count_and_ours_does_not(program: ModuleType, tmp_path: Path) -> None:
    program.main([])
    (tmp_path / "cloud.cfg.d/50-site.cfg").write_text("cloud_final_modules: [mine, final-message]\n")
    (tmp_path / "cloud.cfg.d/40-site.cfg").write_text("cloud_final_modules: [loses]\n")
    (tmp_path / "cloud.cfg.d/99-note.txt").write_text("cloud_final_modules: [no cfg]\n")
    assert program.main([]) == 0
    assert generated(program) == ["mine", SAMMY, "final-message"]


def test_result_is_what_cloud_init_then_reads(program: ModuleType) -> None:
    from cloudinit import util

    program.main([])
    read = util.read_conf_with_confd(program.BASE)["cloud_final_modules"]
    assert read == ["scripts-user", SAMMY, ["phone-home", "once"], "final-message"]


def test_goes_away_when_the_list_names_sammy_or_on_demand(program: ModuleType, tmp_path: Path) -> None:
    program.main([])
    (tmp_path / "cloud.cfg").write_text("cloud_final_modules: [sammy]\n")
    assert (program.main([]), generated(program)) == (0, None)
    (tmp_path / "cloud.cfg").write_text(BASE)
    program.main([])
    assert (program.main(["--remove"]), generated(program)) == (0, None)
    assert program.main(["--remove"]) == 0


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("cloud.cfg", "cloud_final_modules: [a\n", id="broken YAML"),
        pytest.param("cloud.cfg", "cloud_final_modules: text\n", id="not a list"),
        pytest.param("cloud.cfg.d/50-site.cfg", "a: b: c\n", id="broken part"),
        pytest.param("cloud.cfg", None, id="missing"),
    ],
)
def test_unreadable_configuration_changes_nothing_and_is_named(
    program: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str | None
) -> None:
    program.main([])
    before = generated(program)
    (tmp_path / name).unlink(missing_ok=True)
    if text is not None:
        (tmp_path / name).write_text(text)
    assert program.main([]) == 1
    assert name in capsys.readouterr().err
    assert generated(program) == before
    assert not Path(program.OURS + ".new").exists()
