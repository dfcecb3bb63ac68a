# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import jsonschema
import pytest

from cc_sammy import config
from cc_sammy.contract import schema
from cc_sammy.errors import ConfigError


def problems(user: object, text: str = "", environment: dict[str, str] | None = None) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        config.load(user, text, environment)
    return caught.value.problems


def test_the_schema_is_a_schema_and_its_defaults_obey_it() -> None:
    jsonschema.Draft7Validator.check_schema(schema.load())
    assert config.load({}).agent.port == 8443
    assert config.load(None).packages.install == ("git", "curl", "wget", "jq", "htop", "vim")


def test_every_problem_is_named_at_once_with_key_value_and_what_is_allowed() -> None:
    found = "\n".join(
        problems(
            {"x": 1, "agent": {"port": 0}, "docker": {"source": "podman"}, "firewall": {"allow": ["1.2.3/4"]}},
            "SAMMY_FOO=1\nSAMMY_MAX_PARALLEL=lots\n",
        )
    )
    for part in (
        "sammy has no option x; allowed are agent,",
        "sammy.agent.port is 0; allowed is 1 or more",
        'sammy.docker.source is "podman"; allowed is one of distro,',
        '"1.2.3/4"; allowed is a network such as 192.0.2.0/24',
        "unknown variable SAMMY_FOO",
        'sammy.max_parallel is "lots"; allowed is a value of type integer',
    ):
        assert part in found


@pytest.mark.parametrize("user", [[], "x", 3], ids=str)
def test_a_key_that_is_no_mapping_is_named(user: object) -> None:
    assert "allowed is a mapping" in problems(user)[0]


@pytest.mark.parametrize(
    ("section", "source", "lacking"),
    [
        ("nodejs", "archive", "sammy.nodejs.version, sammy.nodejs.sha256"),
        ("agent", "url", "sammy.agent.url, sammy.agent.sha256"),
        ("agent", "deb", "sammy.agent.deb"),
        ("docker", "docker-ce", "sammy.docker.apt"),
    ],
)
def test_a_source_without_its_checksum_or_place_is_refused(section: str, source: str, lacking: str) -> None:
    assert problems({section: {"source": source}}) == (f'sammy.{section}.source is "{source}", which needs {lacking}',)


def test_variables_win_over_the_user_data_and_the_environment_over_the_file() -> None:
    loaded = config.load(
        {"firewall": {"ssh": "open"}, "agent": {"port": 1000}},
        'SAMMY_FIREWALL_SSH="192.0.2.0/24, 2001:db8::/32"\n# SAMMY_NOT=1\nexport SAMMY_AGENT_PORT=2000\n',
        {"SAMMY_AGENT_PORT": "3000", "SAMMY_DOCKER_REQUIRED": "no", "PATH": "/bin"},
    )
    assert loaded.firewall.ssh == ("192.0.2.0/24", "2001:db8::/32")
    assert (loaded.agent.port, loaded.docker.required) == (3000, False)


def test_each_option_has_one_variable_of_its_own() -> None:
    names = [schema.variable(path) for path, _ in schema.options(schema.load())]
    assert len(names) == len(set(names))
    assert {"SAMMY_FIREWALL_BACKEND", "SAMMY_NODEJS_SOURCE", "SAMMY_DOCKER_SOURCE"} <= set(names)


def test_an_empty_variable_takes_back_what_has_no_default() -> None:
    user = {"docker": {"log_tag": "{{.Name}}", "dns": ["192.0.2.53"]}}
    loaded = config.load(user, "SAMMY_DOCKER_LOG_TAG=\nSAMMY_DOCKER_DNS=\n")
    assert (loaded.docker.log_tag, loaded.docker.dns) == (None, ())
    with pytest.raises(ConfigError, match=r"sammy\.journald\.system_max_use"):
        config.load({}, "SAMMY_JOURNALD_SYSTEM_MAX_USE=")
