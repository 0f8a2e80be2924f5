"""Verifying on the real server: over the API, by command, across a restart; what is corrupt is not loaded."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from tests.live.process import LiveServer, until
from tests.models_admin.site import WEIGHTS, ask, copy, lmx, rot


def test_over_the_api(start_server: Callable[..., LiveServer], tmp_path: Path) -> None:
    home = tmp_path / "home"
    model = copy(home / "models" / "org" / "model" / "r1", signed=True)
    server = start_server(home)
    status, body = ask(server, "/admin/model/verify", {"model_id": "org/model", "wait": True})
    assert (status, body["disk_state"], body["job"]["state"], body["bad_files"]) == (200, "verified", "done", [])
    rot(model / WEIGHTS)
    body = ask(server, "/admin/model/verify", {"model_id": "model", "wait": True})[1]
    assert (body["model_id"], body["disk_state"], body["bad_files"]) == ("org/model", "corrupt", [WEIGHTS])
    [listed] = ask(server, "/admin/models/list")[1]["models"]
    assert (listed["disk_state"], listed["state"], listed["bad_files"]) == ("corrupt", "failed", [WEIGHTS])
    assert ask(server, "/v1/models")[1]["data"] == []
    assert ask(server, "/v1/models/org/model")[1]["disk_state"] == "corrupt"
    status, body = ask(server, "/admin/model/load", {"model_id": "org/model"})
    assert (status, body["error"]["code"]) == (503, "model_corrupt")
    assert WEIGHTS in body["error"]["message"]
    chat = {"model": "org/model", "messages": [{"role": "user", "content": "x"}]}
    assert ask(server, "/v1/chat/completions", chat)[1]["error"]["code"] == "model_corrupt"
    rot(model / WEIGHTS)
    status, body = ask(server, "/admin/model/verify", {"model_id": "org/model"})
    assert status == 202
    ask(server, "/admin/model/verify", {"model_id": "org/model", "wait": True})
    assert ask(server, "/admin/model/load", {"model_id": "org/model"})[0] == 200
    assert ask(server, "/admin/model/verify", {"model_id": "x"})[0] == 404
    assert ask(server, "/admin/model/verify", {"model_id": "org/model", "more": 1})[0] == 400


def test_a_file_that_was_cut_off_since_the_last_look_is_not_loaded(
    start_server: Callable[..., LiveServer], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    model = copy(home / "models" / "org" / "model" / "r1", signed=True)
    server = start_server(home)
    sound = (model / "config.json").read_bytes()
    (model / "config.json").write_bytes(sound + b" ")
    status, body = ask(server, "/admin/model/load", {"model_id": "org/model"})
    assert (status, body["error"]["code"]) == (503, "model_corrupt")
    (model / "config.json").write_bytes(sound)
    ask(server, "/admin/model/verify", {"model_id": "org/model", "wait": True})
    assert ask(server, "/admin/models/list")[1]["models"][0]["state"] == "unloaded"
    assert ask(server, "/admin/model/load", {"model_id": "org/model"})[0] == 200


def read_so_far(home: Path) -> int:
    with contextlib.closing(sqlite3.connect(f"file:{home / 'inventory.sqlite3'}?mode=ro", uri=True)) as database:
        return int(database.execute("SELECT count(*) FROM models_admin_modelfile WHERE basis != ''").fetchone()[0])


def test_of_two_revisions_the_one_that_is_bad_gives_its_name_to_the_other(
    start_server: Callable[..., LiveServer], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    old, new = (copy(home / "models" / "org" / "model" / name, signed=True) for name in ("r1", "r2"))
    os.utime(old, (1e9, 1e9))
    server = start_server(home)
    with (new / "config.json").open("a") as file:
        file.write(" ")
    status, body = ask(server, "/admin/model/load", {"model_id": "org/model"})
    assert (status, body["error"]["code"]) == (503, "model_corrupt"), "what was asked for is not swapped unseen"
    listed = {model["path"]: model for model in ask(server, "/admin/models/list")[1]["models"]}
    assert (listed[str(new)]["model_id"], listed[str(new)]["state"]) == ("org/model@r2", "failed")
    assert listed[str(old)]["model_id"] == "org/model"
    status, body = ask(server, "/admin/model/load", {"model_id": "org/model"})
    assert (status, body["resolved_id"]) == (200, "org/model")
    assert ask(server, "/admin/model/load", {"model_id": "org/model@r2"})[1]["error"]["code"] == "model_corrupt"


def test_a_server_that_is_killed_goes_on_after_its_restart(
    start_server: Callable[..., LiveServer], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    model = copy(home / "models" / "mine")
    others = len(list(model.iterdir()))
    last = model / "z.safetensors"
    last.touch()
    os.truncate(last, 16 << 30)
    server = start_server(home)
    job = ask(server, "/admin/model/verify", {"model_id": "mine"})[1]["job"]["id"]
    until(lambda: read_so_far(home) >= others, "the small files on record")
    server.kill()
    os.truncate(last, 1000)
    server = start_server(home)
    told = ask(server, f"/admin/jobs/{job}")[1]
    assert (told["state"], "interrupted" in told["message"]) == ("failed", True)
    result = ask(server, "/admin/model/verify", {"model_id": "mine", "wait": True})[1]["job"]["result"]
    assert (result["skipped"], result["first_sight"]) == (others, ["z.safetensors"])


def test_by_command(start_server: Callable[..., LiveServer], tmp_path: Path) -> None:
    home = tmp_path / "home"
    model = copy(home / "models" / "org" / "model" / "r1", signed=True)
    copy(home / "models" / "mine")
    server = start_server(home)
    said = lmx(server, "verify", "--all")
    assert said.exit_code == 0, said.output
    assert "org/model: sound (4 files" in said.stdout
    assert "mine: sound" in said.stdout
    assert "nobody published a hash of 4 of them" in said.stdout
    rot(model / WEIGHTS)
    said = lmx(server, "verify", "model")
    assert said.exit_code == 1
    assert f"org/model: corrupt (4 files, 0 MB): its files are corrupt: {WEIGHTS} has another content" in said.stdout
    assert said.stderr == "lmx: 1 of 1 could not be found sound: model\n"
    assert "corrupt" in lmx(server, "models").stdout
    assert lmx(server, "verify").exit_code == lmx(server, "verify", "model", "--all").exit_code == 2
    said = lmx(server, "verify", "none")
    assert (said.exit_code, said.stdout, said.stderr.count("\n")) == (1, "", 1)


def test_only_owners_may_verify(start_server: Callable[..., LiveServer]) -> None:
    server = start_server(LMX_SECURITY__API_KEY="client", LMX_SECURITY__ADMIN_KEY="owner")
    for key, said in [("client", 403), ("wrong", 401)]:
        asked = ask(server, "/admin/model/verify", {"model_id": "x"}, Authorization=f"Bearer {key}")
        assert asked[0] == said
