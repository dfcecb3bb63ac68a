# SPDX-License-Identifier: Apache-2.0
"""The configuration's types held to its schema, both ways; and what mypy refuses in code that reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, Union, get_args

import pytest

from cc_sammy import config
from cc_sammy.contract import schema
from cc_sammy.contract.config_types import Config, StepSection

SIMPLE = {"string": str, "integer": int, "boolean": bool}
APT = {"uri": "https://deb.example.org", "suite": "stable", "key": "BEGIN PGP PUBLIC KEY BLOCK"}


def hint_of(child: dict[str, Any]) -> Any:
    """Return the type that a schema's option, other than a section, must have."""
    if "anyOf" in child:
        return Union[tuple(hint_of(option) for option in child["anyOf"])]  # noqa: UP007  # of as many as there are
    if "enum" in child:
        return Literal[tuple(child["enum"])]
    if child["type"] == "array":
        return tuple[hint_of(child["items"]), ...]  # type: ignore[misc]  # mypy knows no computed types
    return Mapping[str, Any] if child["type"] == "object" else SIMPLE[child["type"]]


def differences(node: dict[str, Any], kind: Any, path: str = "sammy") -> Iterator[str]:
    """Yield each difference between a mapping of the schema and its NamedTuple."""
    options, fields = node["properties"], kind.__annotations__
    yield from (f"{path}.{name} has no field" for name in options.keys() - fields.keys())
    yield from (f"{path}.{name} is no option" for name in fields.keys() - options.keys())
    if kind._field_defaults:
        yield f"{path} has a default beside the schema's"
    for name in options.keys() & fields.keys():
        child, hint = options[name], fields[name]
        if "properties" in child:
            section = get_args(hint)[0] if "required" in child else hint
            yield from differences(child, section, f"{path}.{name}")
            wanted = section | None if "required" in child else section
        else:
            wanted = hint_of(child)
            is_given = "default" in child or name in node.get("required", ())
            wanted = wanted if is_given else wanted | None
        if hint != wanted:
            yield f"{path}.{name} is {hint}, not {wanted}"


def test_each_option_has_its_field_with_its_type_and_each_field_its_option() -> None:
    assert list(differences(schema.load(), Config)) == []


def test_a_field_that_differs_is_named() -> None:
    changed = schema.load()
    docker = changed["properties"]["docker"]["properties"]
    docker["sorce"] = docker.pop("source")
    docker["live_restore"]["type"] = "integer"
    del docker["users"]["default"]
    found = "\n".join(differences(changed, Config))
    for part in ("docker.sorce has no field", "docker.source is no option", "live_restore is <class", "users is"):
        assert part in found


def test_each_section_with_required_is_a_steps() -> None:
    named = {name for name, child in schema.load()["properties"].items() if "required" in child.get("properties", {})}
    assert set(get_args(StepSection)) == named
    loaded = config.load({"docker": {"required": False}})
    assert {name: loaded.is_required(name) for name in ("agent", "docker", "swap")} == {
        "agent": True,
        "docker": False,
        "swap": False,
    }


def plain(value: Any) -> Any:
    """Return a loaded value as the schema writes it."""
    if hasattr(value, "_asdict"):
        return {name: plain(field) for name, field in value._asdict().items()}
    return list(value) if isinstance(value, tuple) else value


def test_what_is_loaded_has_the_schemas_defaults_and_none_elsewhere() -> None:
    loaded = plain(config.load({}))
    for path, child in schema.options(schema.load()):
        if "apt" in path:
            continue  # a repository is whole or absent
        value = loaded
        for name in path:
            value = value[name]
        assert value == child.get("default"), path
    assert loaded["docker"]["apt"] is None


def test_a_section_within_a_section_is_typed_too() -> None:
    repository = config.load({"packages": {"apt": APT}}).packages.apt
    assert repository is not None
    assert (repository.uri, repository.components) == ("https://deb.example.org", ("main",))


def test_a_misspelt_key_is_refused() -> None:
    """mypy reads this test: an ignored line without an error is one (warn_unused_ignores)."""
    loaded = config.load({})
    with pytest.raises(AttributeError):
        loaded.docker.sorce  # type: ignore[attr-defined]  # noqa: B018  # what is tested is that mypy names it
    with pytest.raises(AttributeError):
        loaded.dokcer  # type: ignore[attr-defined]  # noqa: B018  # the same
    with pytest.raises(AttributeError):
        loaded.is_required("dokcer")  # type: ignore[arg-type]  # the same
    assert loaded.docker.source != "docker_ce"  # type: ignore[comparison-overlap]  # no such value
