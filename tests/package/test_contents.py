# SPDX-License-Identifier: Apache-2.0
"""What is in which package: every module in exactly one, no step where only the command should be, no tests."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.package.chroot import TOP

MODULES = "usr/lib/python3/dist-packages/"
COMMON = ("__init__", "config", "config_source", "download_urls", "errors")
COMMON_FOLDERS = ("cli", "common", "contract", "firewall", "host")


def files(deb: Path) -> dict[str, str]:
    """Return each file of a package with its mode as ls shows it."""
    listing = subprocess.run(["dpkg-deb", "--contents", deb], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 5) for line in listing.splitlines() if not line.startswith("d")]
    return {row[5].removeprefix("./"): row[0] for row in rows}


def sources(package: str) -> set[str]:
    """Return the package's files in the tree, as the packages name them."""
    found = (path.relative_to(TOP) for path in (TOP / package).rglob("*") if path.is_file())
    return {MODULES + str(path) for path in found if "__pycache__" not in path.parts and path.suffix != ".sh"}


def control(deb: Path, field: str) -> str:
    return subprocess.run(["dpkg-deb", "-f", deb, field], capture_output=True, text=True, check=True).stdout.strip()


def test_three_packages_of_the_one_version(debs: dict[str, Path]) -> None:
    assert sorted(debs) == ["cloud-init-sammy", "sammy-agent", "sammy-common"]
    setup = re.search(r"^version = (.*)$", (TOP / "setup.cfg").read_text(), re.M)
    changelog = re.match(r"sammy \((.*?)\)", (TOP / "debian" / "changelog").read_text())
    assert setup is not None and changelog is not None
    agent = re.search(r'^__version__ = "(.*)"$', (TOP / "sammy_agent" / "__init__.py").read_text(), re.M)
    assert agent is not None
    assert {setup[1], changelog[1], agent[1], *(control(deb, "Version") for deb in debs.values())} == {setup[1]}


def test_no_file_is_in_two_packages(debs: dict[str, Path]) -> None:
    everything = [path for deb in debs.values() for path in files(deb)]
    assert len(everything) == len(set(everything))


def test_every_module_is_in_its_package_and_nothing_else_is(debs: dict[str, Path]) -> None:
    shipped = {name: {path for path in files(deb) if path.startswith(MODULES)} for name, deb in debs.items()}
    own = {
        path for path in sources("cc_sammy")
        if path.removeprefix(f"{MODULES}cc_sammy/").removesuffix(".py") in COMMON
        or path.removeprefix(f"{MODULES}cc_sammy/").partition("/")[0] in COMMON_FOLDERS
    }  # fmt: skip
    assert shipped["sammy-common"] == own
    assert shipped["cloud-init-sammy"] == sources("cc_sammy") - own
    assert shipped["sammy-agent"] == sources("sammy_agent")
    assert not [path for path in shipped["sammy-common"] if "/steps/" in path]


def test_everything_beside_the_modules(debs: dict[str, Path]) -> None:
    others = {
        name: {path for path in files(deb) if not path.startswith((MODULES, "usr/share/doc/"))}
        for name, deb in debs.items()
    }
    assert others == {
        "cloud-init-sammy": {
            "lib/systemd/system/cloud-init-network.service.d/60-sammy.conf",
            "lib/systemd/system/cloud-init.service.d/60-sammy.conf",
            "usr/lib/cloud-init-sammy/sammy_schema.py",
            "usr/lib/cloud-init-sammy/update-modules",
            "usr/lib/tmpfiles.d/cloud-init-sammy.conf",
            "usr/share/python3/runtime.d/cloud-init-sammy.rtupdate",  # dh_python3's, for update-modules' folder
        },
        "sammy-agent": {
            "lib/systemd/system/sammy-agent.service",
            "usr/bin/sammy-agent",
            "usr/share/man/man8/sammy-agent.8.gz",
        },
        "sammy-common": {
            "etc/default/sammy",
            "lib/systemd/system/sammy-containers.slice",
            *(f"lib/systemd/system/{path.name}" for path in (TOP / "packaging" / "systemd").glob("sammy-firewall*")),
            "usr/bin/sammy",
            "usr/lib/sammy/load-firewall",
            "usr/lib/systemd/catalog/sammy.catalog",
            "usr/lib/tmpfiles.d/sammy-common.conf",
            "usr/share/man/man1/sammy.1.gz",
        },
    }


def test_only_programs_are_executable(debs: dict[str, Path]) -> None:
    executable = {path for deb in debs.values() for path, mode in files(deb).items() if "x" in mode}
    assert executable == {
        "usr/bin/sammy",
        "usr/bin/sammy-agent",
        "usr/lib/cloud-init-sammy/update-modules",
        "usr/lib/sammy/load-firewall",
        "usr/share/python3/runtime.d/cloud-init-sammy.rtupdate",
    }


def test_lintian_has_no_errors_and_warnings(debs: dict[str, Path]) -> None:
    changes = next(iter(debs.values())).parent.glob("*.changes")
    said = subprocess.run(
        ["lintian", "--allow-root", "--tag-display-limit", "0", *changes],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert [line for line in said.stdout.splitlines() if line.startswith(("E:", "W:"))] == []
    assert said.returncode == 0, said.stdout + said.stderr


def test_build_leaves_the_tree_alone_and_happens_only_on_change(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    ignored = shutil.ignore_patterns(".git", "build", "__pycache__", ".*_cache", "tests")
    shutil.copytree(TOP, tree, ignore=ignored)
    before = snapshot(tree)

    def build() -> dict[str, int]:
        said = subprocess.run(
            ["packaging/build-deb"], cwd=tree, capture_output=True, text=True, timeout=300, check=False
        )
        assert said.returncode == 0, said.stderr
        return {line: Path(line).stat().st_mtime_ns for line in said.stdout.splitlines()}

    first = build()
    assert snapshot(tree) == before
    assert build() == first
    (tree / "cc_sammy" / "steps" / "new_one.py").write_text('"""A step that nobody told the packaging of."""\n')
    changed = build()
    assert not set(first.values()) & set(changed.values())
    (deb,) = [Path(line) for line in changed if "cloud-init-sammy" in line]
    assert f"{MODULES}cc_sammy/steps/new_one.py" in files(deb)


def snapshot(tree: Path) -> dict[Path, bytes]:
    """Return every file of a tree outside of build/ with its bytes."""
    found = (path for path in tree.rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in found if path.relative_to(tree).parts[0] != "build"}


@pytest.mark.parametrize("line", (TOP / "packaging" / "default" / "sammy").read_text().splitlines())
def test_overrides_are_all_commented_and_real(line: str) -> None:
    from cc_sammy import config
    from cc_sammy.contract import schema

    assert not line or line.startswith("#")
    name, sign, _ = line.removeprefix("#").partition("=")
    if sign:
        assert name in {schema.variable(path) for path, _ in schema.options(schema.load())}
        config.load({}, line.removeprefix("#"))
