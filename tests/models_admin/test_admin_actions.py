"""The actions of /inventory/ ask the running server; they are pressed as a browser presses them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from tests.live.process import LiveServer, fake_model, until
from tests.models_admin.site import ask, copy

LIST = "/inventory/models_admin/modelrecord/"


def press(client: httpx2.Client, action: str, name: str) -> str:
    page = client.get(LIST).text
    row = next(part for part in page.split("<tr") if f">{name}<" in part)
    key = re.search(r'name="_selected_action" value="(\d+)"', row)
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
    assert key is not None
    assert token is not None
    fields = {"action": action, "_selected_action": key[1], "index": "0", "csrfmiddlewaretoken": token[1]}
    answer = client.post(LIST, data=fields, headers={"Origin": str(client.base_url).rstrip("/")})
    assert answer.status_code == 200, answer.text
    return answer.text


@pytest.mark.live
def test_actions(start_server: Callable[..., LiveServer], tmp_path: Path) -> None:
    home = tmp_path / "home"
    fake_model(home, "calm")
    copy(home / "models" / "other")
    server = start_server(home)
    with httpx2.Client(base_url=server.url, follow_redirects=True, timeout=60) as client:
        assert "Being verified" in press(client, "verify", "other")
        until(lambda: ask(server, "/admin/jobs")[1]["jobs"][0]["state"] == "done", "the verification")
        assert "to stay in memory" in press(client, "pin", "calm")
        running = until(lambda: ask(server, "/admin/models/loaded")[1]["models"], "the load")
        assert (running[0]["model_id"], running[0]["pinned"]) == ("calm", True)
        assert "unload it first" in press(client, "forget", "calm")
        assert "Taken off the list" in press(client, "forget", "other")
        assert [model["model_id"] for model in ask(server, "/admin/models/list")[1]["models"]] == ["calm"]
        assert "not on the list" in press(client, "verify", "other")
