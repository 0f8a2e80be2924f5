"""Who did what, as the running server tells it: by API, page, prompt and command line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner, Result

from lmx_site.cli import main
from tests.live.process import MODEL, LiveServer, fake_model, until

pytestmark = pytest.mark.live
ADMIN = "admin-key-of-the-owner"
BOT = "bot-key-of-three"


class Asker:
    """Asks as the owner with the admin key, or with another key."""

    def __init__(self, server: LiveServer) -> None:
        self.server = server
        self.http = httpx2.Client(base_url=server.url, headers={"Authorization": f"Bearer {ADMIN}"}, timeout=60)

    def post(self, path: str, body: dict[str, Any], key: str = ADMIN) -> int:
        return self.http.post(path, json=body, headers={"Authorization": f"Bearer {key}"}).status_code

    def entries(self, **wanted: Any) -> list[dict[str, Any]]:
        """But that of the server's start."""
        return [one for one in self.all(**wanted) if one["action"] != "start_server"]

    def all(self, **wanted: Any) -> list[dict[str, Any]]:
        answer = self.http.get("/admin/audit", params=wanted)
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["entries"]
        return found

    def lmx(self, *words: str) -> Result:
        return CliRunner().invoke(main, ["audit", *words], env={"LMX_URL": self.server.url, "LMX_KEY": ADMIN})


@pytest.fixture
def asker(tmp_path: Path, start_server: Callable[..., LiveServer]) -> Iterator[Asker]:
    home = tmp_path / "home"
    fake_model(home)
    fake_model(home, "fake-b")
    (home / "config.yaml").write_text(
        f"security: {{admin_key: {ADMIN}, api_key: an-api-key}}\nclients: {{bot-3: {{key: {BOT}}}}}\n"
    )
    found = Asker(start_server(home))
    with found.http:
        yield found
    assert found.server.stop() == 0


def test_who_loaded_and_deleted(asker: Asker) -> None:
    assert asker.post("/admin/model/load", {"model_id": MODEL, "context": 512}) == 200
    assert asker.post("/admin/model/delete", {"model_id": MODEL}) == 409
    assert asker.post("/admin/model/unload", {"model_id": MODEL}) == 200
    assert asker.post("/admin/model/delete", {"model_id": MODEL, "dry_run": True}) == 200
    assert asker.post("/admin/model/load", {"model_id": MODEL}, key="wrong") == 401
    assert asker.post("/admin/model/load", {"model_id": MODEL}, key=BOT) == 403
    told = [(one["who"], one["action"], one["subject"], one["outcome"], one["reason"]) for one in asker.entries()]
    assert told == [
        ("owner", "delete_model", MODEL, "done", ""),
        ("owner", "unload_model", MODEL, "done", ""),
        ("owner", "delete_model", MODEL, "refused", "model_loaded"),
        ("owner", "load_model", MODEL, "done", ""),
    ]
    dry, *_, load = asker.entries()
    assert dry["detail"] == {"dry_run": True}
    assert (load["detail"], load["address"], load["status"], load["via"]) == ({"context": 512}, "127.0.0.1", 200, "api")
    assert load["request_id"].startswith("req_")
    assert [one["id"] for one in asker.entries(action="load_model", who="owner", limit=1)] == [load["id"]]
    assert asker.entries(model="nobody") == []


def test_a_prompt_that_loads_a_model_is_told(asker: Asker) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "a secret thought"}]}
    assert asker.post("/v1/chat/completions", body, key=BOT) == 200
    assert asker.post("/v1/chat/completions", body, key=BOT) == 200
    [entry] = until(asker.entries, "the entry")  # it is written beside
    assert (entry["who"], entry["action"], entry["subject"], entry["via"]) == ("bot-3", "load_model", MODEL, "request")
    assert "secret thought" not in json.dumps(asker.entries())


def test_what_the_page_and_lm_studios_clients_do(asker: Asker) -> None:
    assert asker.post("/api/v1/models/load", {"model": MODEL}, key=BOT) == 200
    with httpx2.Client(base_url=asker.server.url, timeout=60) as browser:
        browser.post("/login", data={"key": ADMIN, "csrfmiddlewaretoken": ""})  # no token: refused, and told
        browser.get("/login")
        token = browser.cookies.get("lmx_csrf")
        sent = {"key": ADMIN, "csrfmiddlewaretoken": token}
        assert browser.post("/login", data=sent).status_code == 302
        token = browser.cookies.get("lmx_csrf")
        assert browser.get("/audit").status_code == 200
        token = browser.cookies.get("lmx_csrf")
        pressed = browser.post("/now/unload", data={"model": MODEL}, headers={"X-CSRFToken": token or ""})
        assert pressed.status_code in (200, 302)
        page = browser.get("/audit", params={"action": "unload_model"}).text
        assert MODEL in page
        exported = browser.get("/audit/export", params={"format": "csv"})
        assert exported.headers["Content-Type"].startswith("text/csv")
        assert browser.get("/audit/export", params={"format": "exe"}).status_code == 400
    told = [(one["who"], one["via"], one["action"], one["outcome"]) for one in asker.entries()]
    assert ("bot-3", "api", "load_model", "done") in told
    assert ("owner", "page", "unload_model", "done") in told
    assert [one[2:] for one in told if one[2] == "login"] == [("login", "done")]
    assert ADMIN not in json.dumps(asker.entries())
    rows = list(csv.DictReader(exported.text.splitlines()))
    assert {row["action"] for row in rows} == {"login", "load_model", "unload_model", "start_server"}


def test_a_start_tells_whether_the_configuration_was_changed(asker: Asker) -> None:
    server = asker.server
    for port in ("0", "0", "1"):
        assert server.stop() == 0
        server.close()
        (server.home / "config.yaml").write_text(f"security: {{admin_key: {ADMIN}}}\nengine: {{slots: 1{port}}}\n")
        server.start()
        asker.http.base_url = httpx2.URL(server.url)
    third, second, first, _ = asker.all()
    assert {one["action"] for one in (first, second, third)} == {"start_server"}
    assert first["detail"] == second["detail"] != third["detail"]


def test_strangers_write_nothing(asker: Asker) -> None:
    with httpx2.Client(base_url=asker.server.url, timeout=60) as stranger:
        for _ in range(3):
            assert stranger.post("/login", data={"key": "x", "more": "y" * 5000}).status_code == 403
        stranger.get("/login")
        guess = {"key": "wrong", "csrfmiddlewaretoken": stranger.cookies.get("lmx_csrf")}
        assert stranger.post("/login", data=guess).status_code == 403
    assert asker.entries() == []


def test_whatever_lies_around_the_parameters(asker: Asker) -> None:
    body = b'{"model_id": "fake-b"' + b" " * (2 << 20) + b"}"
    headers = {"Content-Type": "application/json"}
    assert asker.http.post("/admin/model/load", content=body, headers=headers).status_code == 200
    secret = "https://user:hf_SECRETTOKEN12@huggingface.co/org/name"
    assert asker.post("/admin/model/download", {"model_id": secret}) == 400
    assert asker.post("/admin/model/settings", {"model_id": "fake-b", "settings": {"stop": ["SECRET"]}}) == 200
    settings, download, load = asker.entries()
    assert (load["subject"], load["outcome"]) == ("fake-b", "done")
    assert download["subject"] == "https://hidden@huggingface.co/org/name"
    assert (settings["action"], settings["detail"]) == ("set_model_settings", {"settings": {"stop": "hidden"}})


def test_what_a_page_refused_is_not_told_as_done(asker: Asker) -> None:
    with httpx2.Client(base_url=asker.server.url, timeout=60, headers={"HX-Request": "true"}) as browser:
        browser.get("/login", headers={"HX-Request": "false"})
        sent = {"key": ADMIN, "csrfmiddlewaretoken": browser.cookies.get("lmx_csrf") or ""}
        assert browser.post("/login", data=sent).status_code == 302
        browser.get("/transfers")
        token = {"X-CSRFToken": browser.cookies.get("lmx_csrf") or ""}
        for path, form in {
            "/transfers/start": {"model": "no name at all"},
            "/models/settings": {"model_id": "fake-b", "temperature": "9", "was": "{}"},
            "/models/load": {"model": "nobody"},
        }.items():
            assert browser.post(path, data=form, headers=token).status_code == 200, path
    told = {one["action"]: (one["outcome"], one["detail"]) for one in asker.entries() if one["via"] == "page"}
    assert told.pop("login")[0] == "done"
    assert {outcome for outcome, _ in told.values()} == {"refused"}
    assert told["set_model_settings"][1] == {"temperature": "9"}


def test_what_the_inventory_did_is_told_by_name(asker: Asker) -> None:
    with httpx2.Client(base_url=asker.server.url, timeout=60) as browser:
        browser.get("/login")
        sent = {"key": ADMIN, "csrfmiddlewaretoken": browser.cookies.get("lmx_csrf")}
        assert browser.post("/login", data=sent).status_code == 302
        browser.get("/inventory/models_admin/modelrecord/")
        rows: dict[str, Any] = {"action": "verify", "_selected_action": ["1", "2"], "index": "0"}
        rows |= {"select_across": "0", "csrfmiddlewaretoken": browser.cookies.get("lmx_csrf")}
        assert browser.post("/inventory/models_admin/modelrecord/", data=rows).status_code == 302
    told = [one for one in asker.entries() if one["via"] == "inventory"]
    assert sorted(one["subject"] for one in told) == ["fake-a", "fake-b"]
    assert {one["detail"]["action"] for one in told} == {"verify"}


def test_the_command_line(asker: Asker, tmp_path: Path) -> None:
    assert "start server" in asker.lmx().output
    asker.post("/admin/model/load", {"model_id": "fake-b", "ttl": 3600})
    asker.post("/admin/model/load", {"model_id": "no-such-model"})
    lines = asker.lmx().output.splitlines()
    assert "owner from 127.0.0.1: load model no-such-model  refused (model_not_found)" in lines[0]
    assert "load model fake-b  done ttl=3600" in lines[1]
    assert len(asker.lmx("--model", "fake-b", "--since", "5m").output.splitlines()) == 1
    assert "nothing was found" in asker.lmx("--action", "delete_model").output
    target = tmp_path / "log.jsonl"
    assert "3 entries" in asker.lmx("--export", str(target)).output
    assert [json.loads(line)["subject"] for line in target.read_text().splitlines()] == ["no-such-model", "fake-b", ""]
    assert (target.stat().st_mode & 0o777, [path.name for path in tmp_path.glob("*.partial")]) == (0o600, [])
    for words in (["--since", "soon"], ["--export", "log.txt"], ["--limit", "0"]):
        assert asker.lmx(*words).exit_code == 2, words


def test_what_cannot_be_asked_for(asker: Asker) -> None:
    for query in ("limit=0", "limit=1001", "before=0", "since=nan", "via=mail", "outcome=x", "who=" + "a" * 513):
        assert asker.http.get(f"/admin/audit?{query}").status_code == 400, query
