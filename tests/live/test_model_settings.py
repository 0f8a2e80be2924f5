"""Settings of a model on the real server: in force at once, after a restart, and after SIGKILL."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.live.process import LiveServer, fake_model
from tests.live.real import real_server
from tests.material import place, tiny_model
from tests.models_admin.site import ask, lmx

pytestmark = pytest.mark.live
SETTINGS = "/admin/model/settings"


def keep(server: LiveServer, model: str, **settings: Any) -> dict[str, Any]:
    status, told = ask(server, SETTINGS, {"model_id": model, "settings": settings})
    assert status == 200, told
    return dict(told)


def model(server: LiveServer, name: str) -> dict[str, Any]:
    return next(one for one in ask(server, "/admin/models/list")[1]["models"] if one["model_id"] == name)


def said(server: LiveServer, **more: Any) -> dict[str, Any]:
    body = {"model": "m", "messages": [{"role": "user", "content": "Say something."}], **more}
    status, told = ask(server, "/v1/chat/completions", body)
    assert status == 200, told
    return dict(told)


def test_they_take_effect_on_a_real_model(home: Path) -> None:
    place(tiny_model(), home / "models" / "m")
    with real_server(home) as server:
        before = said(server, max_tokens=8)["usage"]["prompt_tokens"]
        told = keep(server, "m", temperature=0, max_tokens=5, system_prompt="Answer with one word.", aliases=["quick"])
        assert told["reload_needed"] is False
        first, second = said(server, model="quick"), said(server)
        assert first["choices"][0]["message"] == second["choices"][0]["message"]
        assert first["usage"]["completion_tokens"] == 5
        assert first["usage"]["prompt_tokens"] > before
        counted = ask(
            server,
            "/v1/messages/count_tokens",
            {"model": "quick", "messages": [{"role": "user", "content": "Say something."}]},
        )
        assert counted[1]["input_tokens"] == first["usage"]["prompt_tokens"]
        own = said(
            server, max_tokens=3, messages=[{"role": "system", "content": "x"}, {"role": "user", "content": "y"}]
        )
        assert own["usage"]["completion_tokens"] == 3
        told = keep(server, "m", context=128, slots=2, tool_parser="hermes", reasoning_parser="qwen3")
        assert told["reload_needed"] is True
        assert model(server, "m")["context"] > 128
        assert ask(server, "/admin/model/load", {"model_id": "m"})[0] == 200
        now = model(server, "m")
        assert (now["context"], now["slots"], now["reload_needed"]) == (128, 2, False)
        assert "reasoning" in now["capabilities"]


def test_they_outlive_a_restart_and_sigkill(home: Path, start_server: Any) -> None:
    for name in ("one", "two"):
        fake_model(home, name)
    server = start_server(home)
    keep(server, "one", pinned=True, slots=3, ttl=7200, aliases=["first"])
    assert server.stop() == 0
    server = start_server(home, LMX_MODELS__AUTO_LOAD="first", LMX_MODELS__IDLE_UNLOAD_SEC="60")
    keep(server, "two", ttl="never")
    ask(server, "/v1/completions", {"model": "two", "prompt": "a"})
    ask(server, "/v1/completions", {"model": "first", "prompt": "a"})
    found = model(server, "one")
    assert (found["state"], found["pinned"], found["slots"], found["ttl"]) == ("ready", True, 3, 7200)
    assert model(server, "two")["ttl"] is None
    assert keep(server, "two", ttl=100)["reload_needed"] is False
    assert model(server, "two")["ttl"] == 100
    keep(server, "one", pinned=False)
    assert model(server, "one")["pinned"] is False
    server.send(signal.SIGKILL)
    server.wait()
    server = start_server(home)
    assert ask(server, SETTINGS + "?model_id=first")[1]["settings"] == {
        "aliases": ["first"],
        "pinned": False,
        "slots": 3,
        "ttl": 7200.0,
    }
    assert server.stop() == 0


def test_the_command(home: Path, start_server: Any) -> None:
    fake_model(home, "one")
    server = start_server(home)
    shown = lmx(server, "set", "one", "temperature=0.5", "stop=a", "stop=b", "pinned=yes", "ttl=never", "aliases=x,y")
    assert shown.exit_code == 0, shown.stderr
    assert "temperature" in shown.stdout
    kept = ask(server, SETTINGS + "?model_id=x")[1]["settings"]
    assert kept == {"aliases": ["x", "y"], "pinned": True, "stop": ["a", "b"], "temperature": 0.5, "ttl": "never"}
    assert lmx(server, "set", "one", "--reset", "stop", "--reset", "aliases").exit_code == 0
    assert set(ask(server, SETTINGS + "?model_id=one")[1]["settings"]) == {"pinned", "temperature", "ttl"}
    listed = lmx(server, "set", "one").stdout
    assert "0.5" in listed
    for words, why in [
        (("temperature=hot",), "temperature must be a number"),
        (("kv_bits=8",), "kv_bits is not supported"),
        (("temprature=1",), "temprature is no setting"),
        (("temperature",), "temperature needs a value"),
        (("slots=2", "--reset", "slots"), "slots is both set and reset"),
    ]:
        failed = lmx(server, "set", "one", *words)
        assert failed.exit_code != 0
        assert why in failed.stderr
    assert server.stop() == 0


def test_a_key_for_inference_does_not_read_the_owners_prompt(home: Path) -> None:
    place(tiny_model(), home / "models" / "m")
    (home / "config.yaml").write_text("security: {admin_key: an-admin-key, api_key: an-api-key}\n")
    asked = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "return_token_strs": True}
    with real_server(home) as server:
        owner, bot = ({"Authorization": f"Bearer {key}"} for key in ("an-admin-key", "an-api-key"))
        before = ask(server, "/v1/tokenize", asked, **bot)[1]
        body = {"model_id": "m", "settings": {"system_prompt": "zebra zebra zebra"}}
        assert ask(server, SETTINGS, body, **owner)[0] == 200
        assert ask(server, "/v1/tokenize", asked, **bot)[1] == before
        assert ask(server, "/v1/tokenize", asked, **owner)[1]["count"] > before["count"]
