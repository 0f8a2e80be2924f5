"""Updates on the real server, from a Hub on this machine: seen, fetched, tried, taken back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models_admin.fetch_names import take
from models_admin.manifest import FileEntry, Manifest, sha256_file, write_manifest
from tests.live.process import LiveServer, until
from tests.material.hub import BIG, COMMIT, REPO, Hub, nano_files
from tests.models_admin.site import WEIGHTS, ask, lmx

NEXT = "6" * 40
README = "README.md"


def told(server: LiveServer) -> dict[str, Any]:
    """The models of the list by revision."""
    return {model["revision"]: model for model in ask(server, "/admin/models/list")[1]["models"]}


def publish(hub: Hub, commit: str = NEXT, /, **files: bytes) -> None:
    """The Hub's branch moves on; names with a dot are written with a double underscore."""
    hub.repos[REPO].commit = commit
    hub.repos[REPO].files = hub.repos[REPO].files | {name.replace("__", "."): text for name, text in files.items()}


def script(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def asked(hub: Hub) -> dict[str, int]:
    """How often the content of each file was asked for."""
    names = {*nano_files(), *hub.repos[REPO].files}
    return {name: len(hub.ranges(name)) for name in names if hub.ranges(name)}


def chat(server: LiveServer, model: str = REPO) -> tuple[int, Any]:
    body = {"model": model, "messages": [{"role": "user", "content": "x"}], "max_tokens": 4}
    return ask(server, "/v1/chat/completions", body)


def fetched(hub: Hub, home: Path) -> None:
    """A model as a server has fetched it; the Hub has a README too."""
    publish(hub, COMMIT, README__md=b"first")
    model = home / "models" / REPO / COMMIT
    model.mkdir(parents=True)
    for name in take(hub.repos[REPO].files):
        (model / name).write_bytes(hub.repos[REPO].files[name])
    files = {path.name: FileEntry(path.stat().st_size, sha256_file(path)) for path in model.iterdir()}
    write_manifest(model, Manifest("huggingface", REPO, COMMIT, files))


@pytest.fixture
def server(start_server: Callable[..., LiveServer], hub: Hub, tmp_path: Path) -> LiveServer:
    """With a model that was fetched."""
    fetched(hub, tmp_path / "home")
    return start_server(tmp_path / "home")


def models(server: LiveServer) -> Path:
    return server.home / "models" / REPO


def test_a_check_downloads_nothing(server: LiveServer, hub: Hub) -> None:
    before = asked(hub)
    assert ask(server, "/admin/model/check-updates", {})[1] == {
        "models": [{"model_id": REPO, "update": None, "problem": ""}]
    }
    publish(hub, README__md=b"a longer text")
    [looked] = ask(server, "/admin/model/check-updates", {"model_id": REPO})[1]["models"]
    assert looked["update"] == {
        "commit": NEXT,
        "bytes": 13,
        "files": [{"name": README, "bytes": 13, "change": "changed"}],
        "removed": [],
        "documents_only": True,
    }
    publish(hub, "7" * 40, extra__json=b"{}", fake__json=b"{}")
    del hub.repos[REPO].files[BIG]
    [looked] = ask(server, "/admin/model/check-updates", {})[1]["models"]
    assert [(file["name"], file["change"]) for file in looked["update"]["files"]] == [
        (README, "changed"),
        ("extra.json", "new"),
        ("fake.json", "new"),
    ]
    assert (looked["update"]["removed"], looked["update"]["documents_only"]) == ([BIG], False)
    assert asked(hub) == before
    assert told(server)[COMMIT]["update"] == looked["update"]
    said = lmx(server, "update", "--check").stdout
    assert "acme/nano-4bit: 777777777777, 0 MB" in said
    assert "  changed README.md" in said
    assert f"  removed {BIG}" in said
    assert "model.update_available" in server.log
    hub.status = 500
    status, said = ask(server, "/admin/model/check-updates", {})
    assert (status, said["error"]["code"]) == (503, "hub_unreachable")
    hub.status = None
    gone = hub.repos.pop(REPO)
    [looked] = ask(server, "/admin/model/check-updates", {})[1]["models"]
    assert (looked["update"], "There is no model" in looked["problem"]) == (None, True)
    assert told(server)[COMMIT]["update"] is not None, "what was known is not forgotten for that"
    hub.repos[REPO] = gone


def test_an_update_takes_the_name_when_it_has_answered(server: LiveServer, hub: Hub) -> None:
    assert ask(server, "/admin/model/update", {"model_id": REPO, "wait": True})[1]["outcome"] == "up_to_date"
    # A commit that was named is only a further revision.
    publish(hub, "8" * 40)
    assert ask(server, "/admin/model/download", {"model_id": REPO, "revision": "8" * 40, "wait": True})[0] == 200
    listed = told(server)
    assert (listed[COMMIT]["model_id"], listed["8" * 40]["trial"]) == (REPO, None)
    publish(hub, fake__json=script(), config__json=nano_files()["config.json"] + b"\n")
    before = asked(hub)
    status, done = ask(server, "/admin/model/update", {"model_id": "nano-4bit", "wait": True})
    assert (status, done["outcome"], done["model_id"]) == (200, "updated", REPO)
    assert (done["revision"], done["previous"], done["kept"]["model_id"]) == (NEXT, COMMIT, f"{REPO}@{COMMIT[:12]}")
    assert 0 < done["kept"]["freed_bytes"] < 64 << 10 < done["kept"]["shared_bytes"], "what all have is no space"
    assert {name for name, times in asked(hub).items() if times > before.get(name, 0)} == {"fake.json", "config.json"}
    for name in (WEIGHTS, BIG):
        assert (models(server) / NEXT / name).samefile(models(server) / COMMIT / name)
    listed = told(server)
    assert (listed[NEXT]["model_id"], listed[NEXT]["is_current"], listed[NEXT]["update"]) == (REPO, True, None)
    assert listed[NEXT]["state"] == "unloaded", "it was loaded for the prompt alone"
    assert (listed[COMMIT]["is_current"], listed[COMMIT]["superseded_at"] > 0) == (False, True)
    assert chat(server)[0] == 200
    gone = ask(server, "/admin/model/delete", {"model_id": done["kept"]["model_id"]})
    assert (gone[0], gone[1]["deleted"]) == (200, True)
    assert (models(server) / NEXT / BIG).stat().st_size == len(nano_files()[BIG])


def test_one_that_does_not_answer_does_not_take_the_name(
    server: LiveServer, hub: Hub, start_server: Callable[..., LiveServer]
) -> None:
    publish(hub, fake__json=script(load_error="the weights are of another world"))
    status, done = ask(server, "/admin/model/update", {"model_id": REPO, "wait": True})
    assert (status, done["outcome"], done["revision"]) == (200, "failed", NEXT)
    assert "another world" in done["reason"]
    listed = told(server)
    assert (listed[COMMIT]["model_id"], listed[COMMIT]["is_current"]) == (REPO, True)
    assert (listed[NEXT]["trial"]["state"], listed[NEXT]["trial"]["reason"]) == ("failed", done["reason"])
    assert chat(server)[0] == 200
    assert ask(server, "/admin/model/check-updates", {})[1]["models"][0]["update"] is None, "it is here, in vain"
    server.stop()
    server = start_server(server.home)
    assert told(server)[COMMIT]["model_id"] == REPO
    said = lmx(server, "update", REPO)
    assert (said.exit_code, "stays as it was" in said.stderr, "another world" in said.stderr) == (1, True, True)
    # The owner may want it all the same.
    assert ask(server, "/admin/model/rollback", {"model_id": REPO, "revision": "666"})[1]["revision"] == NEXT
    assert told(server)[NEXT]["model_id"] == REPO


def test_going_back_and_forward_outlives_a_restart(
    server: LiveServer, hub: Hub, start_server: Callable[..., LiveServer]
) -> None:
    alone = ask(server, "/admin/model/rollback", {"model_id": REPO})
    assert (alone[0], alone[1]["error"]["code"]) == (409, "no_other_revision")
    publish(hub, fake__json=script())
    assert lmx(server, "update", REPO).stdout.startswith(f"{REPO}: 666666666666 now; the one before is ")
    assert chat(server)[0] == 200
    done = ask(server, "/admin/model/rollback", {"model_id": REPO})[1]
    assert (done["revision"], done["previous"], done["previous_id"]) == (COMMIT, NEXT, f"{REPO}@{NEXT[:12]}")
    in_use = ask(server, "/admin/model/delete", {"model_id": REPO, "dry_run": True})
    assert in_use[1]["error"]["code"] == "model_loaded", "it was loaded, so what has its name now is"
    assert ask(server, "/admin/model/delete", {"model_id": f"{REPO}@{NEXT[:12]}", "dry_run": True})[0] == 200
    server.stop()
    server = start_server(server.home)
    assert told(server)[COMMIT]["model_id"] == REPO
    # What was rolled back from is not brought back by a download, but by the owner's word.
    assert ask(server, "/admin/model/download", {"model_id": REPO, "wait": True})[1]["job"]["state"] != "done"
    assert told(server)[COMMIT]["model_id"] == REPO
    assert "666666666666 now" in lmx(server, "rollback", REPO, "--forward").stdout
    assert told(server)[NEXT]["model_id"] == REPO
    assert "555555555555 now" in lmx(server, "rollback", REPO, "--to", "55").stdout
    assert lmx(server, "rollback", REPO, "--to", "55").stdout == f"{REPO}: is 555555555555 already\n"
    assert "666666666666 now" in lmx(server, "update", REPO).stdout, "an update is the owner's word too"
    missing = ask(server, "/admin/model/rollback", {"model_id": REPO, "revision": "9"})
    assert (missing[0], missing[1]["error"]["code"]) == (404, "revision_not_found")


def test_a_trial_that_was_cut_off_is_made_again(
    server: LiveServer, hub: Hub, start_server: Callable[..., LiveServer], tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    publish(hub, fake__json=script(load_gate=str(gate)))
    # A plain download of the branch is an update too.
    assert ask(server, "/admin/model/download", {"model_id": REPO, "wait": True})[0] == 200
    until(Path(f"{gate}.reached").exists, "the trial")
    assert told(server)[COMMIT]["model_id"] == REPO
    assert told(server)[NEXT]["trial"] == {"state": "waiting", "reason": "", "at": None}
    assert ask(server, "/admin/model/delete", {"model_id": f"{REPO}@{NEXT[:12]}"})[1]["error"]["code"] == "model_busy"
    server.kill()
    Path(f"{gate}.reached").unlink()
    server = start_server(server.home)
    until(Path(f"{gate}.reached").exists, "the trial after the restart")
    gate.touch()
    until(lambda: told(server)[NEXT]["model_id"] == REPO, "the name")


def test_offline_and_what_is_not_from_the_hub(
    start_server: Callable[..., LiveServer], hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = start_server()
    status, said = ask(other, "/admin/model/update", {"model_id": "fake-a"})
    assert (status, said["error"]["code"]) == (409, "not_from_hub")
    assert ask(other, "/admin/model/check-updates", {"model_id": "none"})[0] == 404
    assert ask(other, "/admin/model/check-updates", {"model_id": 5})[0] == 400
    assert ask(other, "/admin/model/rollback", {"model_id": "fake-a", "revision": "1", "forward": True})[0] == 400
    assert lmx(other, "update", "--check").stdout == "no model here came from the Hub\n"
    assert lmx(other, "update").exit_code == lmx(other, "rollback", "x", "--to", "1", "--forward").exit_code == 2
    fetched(hub, tmp_path / "home")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    server = start_server(tmp_path / "home")
    for path, body in [("check-updates", {}), ("update", {"model_id": REPO})]:
        status, said = ask(server, f"/admin/model/{path}", body)
        assert (status, said["error"]["code"]) == (503, "hub_unreachable")
