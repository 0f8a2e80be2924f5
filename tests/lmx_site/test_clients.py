"""Clients of the configuration: their keys, names and priorities, and what a request may say of its own urgency."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference.errors import Forbidden, InvalidRequest, Unauthorized
from inference.principal import Principal
from inference.records import RequestRecord
from lmx_site.access import Client, Credentials, Keys, decide
from lmx_site.config import Config, ConfigError, load_config

HERE, THERE = "127.0.0.1", "192.168.1.7"
CLIENTS = {
    "agent": Client.of(1, "agent-secret"),
    "batch": Client.of(-1, None),
    "owner": Client.of(1, None),
}
KEYLESS = Keys.of(None, None, trust_lan=False, clients=CLIENTS)
GUARDED = Keys.of("api", "adm", trust_lan=False, clients=CLIENTS)


def ask(keys: Keys, path: str = "/v1/models", address: str = HERE, **headers: str) -> Principal:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return decide(Credentials(path, address, named, {}), keys)


@pytest.mark.parametrize("keys", [KEYLESS, GUARDED])
@pytest.mark.parametrize("address", [HERE, THERE])
@pytest.mark.parametrize("header", [{"authorization": "Bearer agent-secret"}, {"x_api_key": "agent-secret"}])
def test_a_key_of_its_own_opens_inference_and_names_it(keys: Keys, address: str, header: dict[str, str]) -> None:
    found = ask(keys, address=address, **header)
    assert (found.kind, found.id, found.priority) == ("key", "agent", 1)
    assert found.may("inference")
    assert "agent-secret" not in repr(keys)


def test_it_administrates_only_where_everybody_here_may() -> None:
    assert ask(KEYLESS, "/admin/status", authorization="Bearer agent-secret").may("admin")
    for keys, address in ((KEYLESS, THERE), (GUARDED, HERE)):
        with pytest.raises(Forbidden):
            ask(keys, "/admin/status", address, authorization="Bearer agent-secret")


def test_a_name_without_a_key_has_its_priority_by_being_said() -> None:
    assert ask(KEYLESS, authorization="Bearer batch").priority == -1
    assert ask(KEYLESS, x_client="batch").priority == -1
    assert ask(KEYLESS, x_client="somebody").priority == 0
    assert ask(GUARDED, "/v1/models", authorization="Bearer adm").priority == 1


@pytest.mark.parametrize("headers", [{"x_client": "agent"}, {"authorization": "Bearer agent"}, {"x_client": "owner"}])
def test_a_name_that_a_key_proves_cannot_be_borrowed(headers: dict[str, str]) -> None:
    found = ask(KEYLESS, user_agent="curl/8", **headers)
    assert (found.id, found.priority) == ("curl/8 at 127.0.0.1", 0)


def test_a_client_key_closes_nothing() -> None:
    assert ask(KEYLESS).kind == "owner"
    with pytest.raises(Forbidden):
        ask(KEYLESS, address=THERE)
    with pytest.raises(Unauthorized):
        ask(GUARDED)


# ----------------------------------------------------------------------------------------------------------- urgency


@pytest.mark.parametrize(("said", "expected"), [("low", -1), (" LOW ", -1), ("normal", 0), ("high", 1), (None, 1)])
def test_a_header_lowers_the_priority(said: str | None, expected: int) -> None:
    headers = {"authorization": "Bearer agent-secret"} | ({"x_priority": said} if said else {})
    assert ask(KEYLESS, **headers).priority == expected


def test_it_never_raises_it() -> None:
    assert ask(KEYLESS, x_client="batch", x_priority="high").priority == -1
    assert ask(KEYLESS, x_priority="high").priority == 0


@pytest.mark.parametrize("said", ["", "urgent", "1", "low, high", "ｌｏｗ"])
def test_rubbish_for_a_priority(said: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        ask(KEYLESS, x_priority=said)
    assert refused.value.param == "X-Priority"


@pytest.mark.parametrize("said", ["", "0", "-1", "nan", "inf", "1e9", "30s", "1_0", "soon", "٣", "9" * 5000])
def test_rubbish_for_a_timeout(said: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        ask(KEYLESS, x_timeout=said)
    assert refused.value.param == "X-Timeout"


def test_a_record_takes_both_from_who_asks() -> None:
    asker = ask(KEYLESS, x_client="batch", x_timeout="2.5")
    record = RequestRecord("r", "openai", "/v1/x", asker, "m", received=100.0)
    assert (record.priority, record.deadline) == (-1, 102.5)
    plain = RequestRecord("r", "openai", "/v1/x", ask(KEYLESS, x_stainless_timeout="600"), "m")
    assert (plain.priority, plain.deadline) == (0, None)


def test_other_paths_do_not_look_at_them() -> None:
    assert ask(KEYLESS, "/admin/status", x_priority="rubbish", x_timeout="rubbish").patience_s is None


# ----------------------------------------------------------------------------------------------------- configuration


def load(tmp_path: Path, text: str) -> Config:
    (tmp_path / "config.yaml").write_text(text)
    return load_config(tmp_path / "config.yaml", {})


def problem(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, text)
    assert "hush" not in str(refused.value)
    return str(refused.value)


def test_clients_in_the_file(tmp_path: Path) -> None:
    config = load(tmp_path, "clients:\n  batch: {priority: LOW}\n  agent:\n    priority: high\n    key: hush-hush\n")
    assert config.clients["batch"].priority == "low"
    assert config.clients["agent"].key is not None
    assert "hush" not in repr(config)
    assert load(tmp_path, "clients:\n").clients == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("clients: {a: {priority: hihg}}", "did you mean high?"),
        ("clients: {a: {prioritty: high}}", "clients.a.prioritty is not a key; did you mean clients.a.priority?"),
        ("clients: {a: hush}", "clients.a must hold keys such as 'priority:'"),
        ("clients: {a: {key: [hush]}}", "clients.a.key"),
        ("clients: {a: {key: hush hush}}", "printable ASCII"),
        ("clients: {a: {key: hush}, b: {key: hush}}", "clients.b.key is another one's key too"),
        ("security: {api_key: hush}\nclients: {a: {key: hush}}", "clients.a.key is another one's key too"),
        ("clients: {owner: {key: hush}}", "clients.owner can have no key"),
        ("clients: {'  ': {priority: low}}", "is empty"),
        ("clients: [a]", "clients must hold keys such as 'name:'"),
        ("client: {a: {priority: low}}", "did you mean clients?"),
    ],
)
def test_what_is_wrong_is_said_and_the_key_is_not(tmp_path: Path, text: str, said: str) -> None:
    assert said in problem(tmp_path, text)


def test_a_client_key_is_a_key_for_other_addresses(tmp_path: Path) -> None:
    config = load(tmp_path, "server: {host: 0.0.0.0}\nclients: {a: {key: k}}")
    assert config.server.host == "0.0.0.0"
    assert "can be reached" in problem(tmp_path, "server: {host: 0.0.0.0}\nclients: {a: {priority: low}}")
