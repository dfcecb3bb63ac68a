# SPDX-License-Identifier: Apache-2.0
"""From the `sammy:` key and the SAMMY_* overrides to values that are known to be right, or all errors at once.

The schema (contract/schema.json) is the one definition of keys, types and defaults; contract/config_types.py is what
mypy knows of it. A variable's name follows from the key's path: firewall.ssh is SAMMY_FIREWALL_SSH; lists are separated
by spaces or commas. The environment wins over /etc/default/sammy, which wins over the user-data.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from cc_sammy.contract import schema
from cc_sammy.contract.config_types import Config, DockerConfig
from cc_sammy.contract.schema import Schema
from cc_sammy.errors import ConfigError

__all__ = ["Config", "given", "load"]


def load(user: Any, overrides_file: str | None = None, environment: Mapping[str, str] | None = None) -> Config:
    """Return the configuration.

    :param user: the value of `sammy:`; None means an empty mapping.
    :param overrides_file: text of /etc/default/sammy.
    :param environment: SAMMY_* of it win over the file.
    :raises ConfigError: with every problem found, before anything is done.
    """
    whole = schema.load()
    if user is not None and not isinstance(user, dict):
        raise ConfigError([f"sammy: is {_shown(user)}; allowed is a mapping of options"])
    values = json.loads(json.dumps(user or {}, default=str))
    variables = _variables(overrides_file or "", environment or {})
    problems = list(_apply_variables(whole, values, variables))
    problems += [_explain(error) for error in _errors(whole, values)]
    _fill_defaults(whole, values)
    with contextlib.suppress(AttributeError, TypeError):  # what has the wrong shape is named already
        loaded: Config = _typed(Config, values)
        problems += _cross_checks(loaded)
    if problems:
        raise ConfigError(problems)
    return loaded


def _typed(kind: Any, values: Mapping[str, Any]) -> Any:
    """Return checked values as their NamedTuple, nested ones too; what is not given is None."""

    def field(name: str, hint: Any) -> Any:
        value = values.get(name)
        section = next((part for part in (hint, *get_args(hint)) if hasattr(part, "_fields")), None)
        if section is not None and value is not None:
            return _typed(section, value)
        return tuple(value) if isinstance(value, list) else value

    return kind(**{name: field(name, hint) for name, hint in kind.__annotations__.items()})


def given(value: str | None) -> str:
    """Return an option's value where the chosen source demands one: `load` refuses a configuration without it.

    :raises ConfigError: it is missing all the same.
    """
    if value is None:
        raise ConfigError(["an option that the chosen source needs is missing"])
    return value


def _variables(text: str, environment: Mapping[str, str]) -> dict[str, str]:
    import shlex

    found: dict[str, str] = {}
    for line in text.splitlines():
        name, sign, value = line.strip().removeprefix("export ").partition("=")
        if sign and name.startswith("SAMMY_"):
            found[name] = " ".join(shlex.split(value, comments=True))
    return {**found, **{name: value for name, value in environment.items() if name.startswith("SAMMY_")}}


def _apply_variables(whole: Schema, values: dict[str, Any], variables: dict[str, str]) -> Iterator[str]:
    options = {schema.variable(path): (path, child) for path, child in schema.options(whole)}
    for name, text in sorted(variables.items()):
        if name not in options:
            yield f"unknown variable {name}; see sammy(1)"
            continue
        path, child = options[name]
        section = values
        for key in path[:-1]:
            section = section.setdefault(key, {})
            if not isinstance(section, dict):
                break  # the schema's own check names it
        else:
            if not text and child.get("type") == "string" and "default" not in child:
                section.pop(path[-1], None)  # an empty one takes back what has no value of its own
            else:
                section[path[-1]] = _from_text(child, text)


def _from_text(child: Schema, text: str) -> Any:
    kinds = {child.get("type")} | {option.get("type") for option in child.get("anyOf", ())}
    words = {word for option in child.get("anyOf", ()) for word in option.get("enum", ())}
    if "boolean" in kinds and text.lower() in ("true", "yes", "1", "on", "false", "no", "0", "off"):
        return text.lower() in ("true", "yes", "1", "on")
    if "integer" in kinds and text.lstrip("-").isdigit():
        return int(text)
    if "array" in kinds and text not in words:
        return text.replace(",", " ").split()
    return text


def _errors(whole: Schema, values: Any) -> list[Any]:
    import jsonschema

    found = jsonschema.Draft7Validator(whole).iter_errors(values)
    return sorted(found, key=lambda error: [str(part) for part in error.absolute_path])


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _explain(error: Any) -> str:
    """Say one schema error with key, value and what is allowed."""
    path = ".".join(["sammy", *(str(part) for part in error.absolute_path)])
    rule, wanted = error.validator, error.validator_value
    if rule == "additionalProperties":
        known = sorted(error.schema["properties"])
        unknown = sorted(set(error.instance) - set(known))
        return f"{path} has no option {', '.join(unknown)}; allowed are {', '.join(known)}"
    if rule == "required":
        missing = [key for key in wanted if key not in error.instance]
        return f"{path} lacks {', '.join(missing)}"
    if rule == "anyOf":
        wanted = error.schema.get("description", "")
    allowed = {
        "type": f"a value of type {wanted}",
        "enum": f"one of {', '.join(map(str, wanted)) if isinstance(wanted, list) else wanted}",
        "minimum": f"{wanted} or more",
        "maximum": f"{wanted} or less",
        "pattern": f"what matches {wanted} ({error.schema.get('description', '').rstrip('.')})",
        "anyOf": str(wanted),
        "minLength": "a text that is not empty",
        "minItems": "a list that is not empty",
    }.get(rule, f"{rule} {wanted}")
    return f"{path} is {_shown(error.instance)}; allowed is {allowed}"


def _fill_defaults(node: Schema, values: Any) -> None:
    if not isinstance(values, dict):
        return
    for name, child in node["properties"].items():
        if child.get("type") == "object" and "properties" in child:
            if "required" in child and name not in values:
                continue  # a repository is whole or absent
            _fill_defaults(child, values.setdefault(name, {}))
        elif "default" in child:
            values.setdefault(name, json.loads(json.dumps(child["default"])))


def _cross_checks(config: Config) -> Iterator[str]:
    """What one option demands of another, and addresses that a pattern cannot check."""
    agent, nodejs, docker = config.agent, config.nodejs, config.docker
    yield from _missing("agent", agent.source, "deb", deb=agent.deb)
    yield from _missing("agent", agent.source, "url", url=agent.url, sha256=agent.sha256)
    yield from _missing("nodejs", nodejs.source, "archive", version=nodejs.version, sha256=nodejs.sha256)
    yield from _missing("nodejs", nodejs.source, "nodesource", apt=nodejs.apt)
    yield from _missing("docker", docker.source, "docker-ce", apt=docker.apt)
    yield from _key_problems(config)
    yield from _docker_problems(docker)
    yield from _network_problems("sammy.firewall.allow", config.firewall.allow)
    yield from _network_problems("sammy.firewall.ssh", config.firewall.ssh)


def _missing(section: str, source: str, demanding: str, **options: object) -> Iterator[str]:
    """Name the options that the section's source needs and that are not given."""
    missing = [f"sammy.{section}.{name}" for name, value in options.items() if value is None]
    if source == demanding and missing:
        yield f'sammy.{section}.source is "{source}", which needs {", ".join(missing)}'


def _key_problems(config: Config) -> Iterator[str]:
    """One repository has one key: apt refuses to read any list at all otherwise."""
    first: dict[tuple[str, str], tuple[str, str]] = {}
    repositories = {
        "packages": config.packages.apt,
        "docker": config.docker.apt,
        "nodejs": config.nodejs.apt,
        "agent": config.agent.apt,
    }
    for name, repository in repositories.items():
        if repository is not None:
            text = repository.key.strip()
            other, key = first.setdefault((repository.uri, repository.suite), (name, text))
            if key != text:
                yield f"sammy.{name}.apt.key differs from sammy.{other}.apt.key; allowed is one key per repository"


def _docker_problems(docker: DockerConfig) -> Iterator[str]:
    """Addresses that dockerd would refuse to start with."""
    import ipaddress

    for text in docker.dns:
        try:
            ipaddress.ip_address(text)
        except ValueError as error:
            yield f"sammy.docker.dns has {_shown(text)}; allowed is an address such as 192.0.2.53 ({error})"
    for text in docker.address_pools:
        base, _, size = text.rpartition(":")
        try:
            network = ipaddress.ip_network(base)
            if not network.prefixlen <= int(size) <= network.max_prefixlen:
                raise ValueError(f"{size} is no prefix length of networks within {network}")
        except ValueError as error:
            yield f"sammy.docker.address_pools has {_shown(text)}; allowed is such as 172.30.0.0/16:24 ({error})"


def _network_problems(key: str, networks: str | tuple[str, ...]) -> Iterator[str]:
    import ipaddress

    for text in networks if isinstance(networks, tuple) else ():
        try:
            ipaddress.ip_network(text)
        except ValueError as error:
            yield f"{key} has {_shown(text)}; allowed is a network such as 192.0.2.0/24 ({error})"
