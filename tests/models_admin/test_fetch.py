"""Fetching: real child processes with the real client library, against a Hub on this machine."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from inference.errors import Conflict, InsufficientStorage, InvalidRequest, LmxError, ModelNotFound, NotFound
from inference.fetching import JobStatus
from models_admin.catalog import DiskCatalog
from models_admin.fetch import HubFetcher
from models_admin.fetch_names import parse_wanted, take
from models_admin.fetch_told import ModelGated
from models_admin.jobs import Jobs
from models_admin.manifest import NAME as MANIFEST
from models_admin.manifest import read_manifest
from tests.live.process import LiveServer
from tests.material.hub import BIG, COMMIT, MIB, REPO, Hub, HubRepo, nano_files

pytestmark = pytest.mark.django_db(transaction=True)


class Board:
    """Keeps what is shown and said."""

    def __init__(self) -> None:
        self.shown: list[dict[str, object]] = []
        self.events: list[str] = []

    def emit(self, kind: str, /, **fields: object) -> None:
        self.events.append(kind)

    def publish(self, topic: str, payload: dict[str, object] | None, *, key: str | None = None) -> None:
        if payload is not None:
            self.shown.append(payload)


class Site:
    """The parts of a server that fetching needs."""

    def __init__(self, models: Path) -> None:
        self.models = models
        self.board = Board()
        self.jobs = Jobs(self.board)
        self.catalog = DiskCatalog([models])
        self.fetcher = HubFetcher(self.jobs, self.catalog, models, keep_free=0)

    @property
    def final(self) -> Path:
        return self.models / REPO / COMMIT

    @property
    def partial(self) -> Path:
        return self.models / REPO / f".{COMMIT}.partial"

    async def reached(self, size: int) -> None:
        """Wait until the big file has so many bytes on the disk."""
        part = self.partial / f"{BIG}.part"
        async with asyncio.timeout(60):
            while not part.exists() or part.stat().st_size < size:
                await asyncio.sleep(0.01)

    async def fetch(self, repo: str = REPO) -> JobStatus:
        return await self.fetcher.wait((await self.fetcher.start(repo)).job)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    models = tmp_path / "models"
    models.mkdir()
    found = Site(models)
    yield found
    await found.jobs.stop()
    await found.fetcher.stop()
    found.catalog.close()


def child_of_fetch() -> psutil.Process:
    [child] = [one for one in psutil.Process().children() if "models_admin.fetch_worker" in one.cmdline()]
    return child


async def test_a_model_is_fetched_verified_and_found(site: Site, hub: Hub) -> None:
    started = await site.fetcher.start(REPO)
    files = {name: content for name, content in nano_files().items() if name in take(nano_files())}
    assert started.total == sum(map(len, files.values()))
    ended = await site.fetcher.wait(started.job)
    assert (ended.state, ended.message, ended.done, ended.kind) == ("done", "", started.total, "fetch")
    assert ended.result["path"] == str(site.final)
    assert {path.name: path.read_bytes() for path in site.final.iterdir() if path.name != MANIFEST} == files
    assert not {"run.py", "pytorch_model.bin", "weights.pt"} & set(files)
    manifest = read_manifest(site.final)
    assert manifest is not None
    assert (manifest.source, manifest.repo, manifest.revision) == ("huggingface", REPO, COMMIT)
    assert {name: entry.sha256 for name, entry in manifest.files.items()} == {
        name: hashlib.sha256(content).hexdigest() for name, content in files.items()
    }
    ref = site.catalog.resolve(REPO)
    assert (ref.path, ref.revision, ref.disk_state) == (site.final, COMMIT, "verified")
    assert site.board.events == ["job.queued", "job.started", "job.done"]
    done = [int(str(one["done"])) for one in site.board.shown]
    assert done == sorted(done), "progress never goes back"


async def test_a_fetch_is_not_done_before_its_model_is_listed(
    site: Site, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, gate, refresh = asyncio.Event(), asyncio.Event(), site.catalog.refresh

    async def gated() -> None:
        asked.set()
        await gate.wait()
        await refresh()

    monkeypatch.setattr(site.catalog, "refresh", gated)
    job = (await site.fetcher.start(REPO)).job
    await asked.wait()
    assert (await site.fetcher.status(job)).state == "running"
    gate.set()
    assert (await site.fetcher.wait(job)).state == "done"
    assert site.catalog.resolve(REPO).path == site.final


async def test_what_is_there_is_not_fetched_again(site: Site, hub: Hub) -> None:
    assert (await site.fetch()).state == "done"
    before = len(hub.ranges(BIG))
    again = await site.fetcher.start(f"{hub.url}/{REPO}/tree/main")
    again = await site.fetcher.wait(again.job)
    assert (again.state, again.result["path"]) == ("already_downloaded", str(site.final))
    assert len(hub.ranges(BIG)) == before


@pytest.mark.parametrize("ignores_range", [False, True])
async def test_a_killed_fetch_goes_on_where_it_stopped(site: Site, hub: Hub, ignores_range: bool) -> None:
    hub.repos[REPO].ignores_range = ignores_range
    hub.hold(BIG, 2 * MIB + 1000)
    started = await site.fetcher.start(REPO)
    await site.reached(2 * MIB)
    child_of_fetch().kill()
    dead = await site.fetcher.wait(started.job)
    assert (dead.state, dead.code) == ("failed", "job_failed")
    assert "SIGKILL" in dead.message
    assert not site.final.exists()
    there = (site.partial / f"{BIG}.part").stat().st_size
    assert 2 * MIB <= there <= 2 * MIB + 1000
    await site.catalog.refresh()
    assert site.catalog.all() == [], "a partial model is no model"
    hub.release()
    assert (await site.fetch()).state == "done"
    assert hub.ranges(BIG) == ["", f"bytes={there}-"]
    assert (site.final / BIG).read_bytes() == nano_files()[BIG]
    assert len(hub.ranges("config.json")) == 1


async def test_a_cancelled_fetch_keeps_its_bytes(site: Site, hub: Hub) -> None:
    hub.hold(BIG, 3 * MIB)
    started = await site.fetcher.start(REPO)
    await site.reached(2 * MIB)
    ended = await site.fetcher.cancel(started.job)
    assert (ended.state, ended.code) == ("cancelled", "job_cancelled")
    assert (site.partial / f"{BIG}.part").stat().st_size >= MIB
    with pytest.raises(Conflict, match="cancelled"):
        await site.fetcher.cancel(started.job)
    hub.release()
    assert (await site.fetch()).state == "done"
    assert hub.ranges(BIG)[1].startswith("bytes=")


async def test_a_wrong_byte_costs_that_file_only(site: Site, hub: Hub) -> None:
    hub.repos[REPO].wrong = {BIG}
    failed = await site.fetch()
    assert (failed.state, failed.code) == ("failed", "hash_mismatch")
    assert BIG in failed.message
    assert hub.ranges(BIG) == ["", ""], "fetched once more, alone"
    assert not site.final.exists()
    assert not list(site.partial.glob(f"{BIG}*"))
    assert (site.partial / "config.json").exists()
    hub.repos[REPO].wrong = set()
    assert (await site.fetch()).state == "done"
    assert len(hub.ranges(BIG)) == 3
    assert len(hub.ranges("config.json")) == 1


async def test_a_small_file_is_verified_too(site: Site, hub: Hub) -> None:
    hub.repos[REPO].wrong = {"config.json"}
    failed = await site.fetch()
    assert failed.code == "hash_mismatch"
    assert "config.json" in failed.message


async def test_bytes_that_were_spoilt_on_the_disk_are_noticed(site: Site, hub: Hub) -> None:
    site.partial.mkdir(parents=True)
    (site.partial / f"{BIG}.part").write_bytes(b"\0" * MIB)
    assert (await site.fetch()).state == "done"
    assert hub.ranges(BIG) == [f"bytes={MIB}-", ""]


async def test_more_on_disk_than_there_is_begins_anew(site: Site, hub: Hub) -> None:
    site.partial.mkdir(parents=True)
    (site.partial / f"{BIG}.part").write_bytes(b"\0" * 9 * MIB)
    (site.partial / "left.over").write_bytes(b"x")
    assert (await site.fetch()).state == "done"
    assert hub.ranges(BIG) == [""]
    assert not (site.final / "left.over").exists()


async def test_a_link_in_the_way_is_not_followed(site: Site, hub: Hub, tmp_path: Path) -> None:
    site.partial.mkdir(parents=True)
    (tmp_path / "mine").write_bytes(b"mine")
    (site.partial / f"{BIG}.part").symlink_to(tmp_path / "mine")
    assert (await site.fetch()).state == "failed"
    assert (tmp_path / "mine").read_bytes() == b"mine"


async def test_gated(site: Site, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repos[REPO].gated = True
    with pytest.raises(ModelGated, match="HF_TOKEN"):
        await site.fetcher.start(REPO)
    assert hub.ranges(BIG) == []
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert (await site.fetch()).state == "done"


async def test_not_there(site: Site, hub: Hub) -> None:
    with pytest.raises(ModelNotFound, match="acme/none"):
        await site.fetcher.start("acme/none")
    with pytest.raises(NotFound, match="'v9'") as refused:
        await site.fetcher.start(REPO, "v9")
    assert (refused.value.param, refused.value.code) == ("revision", "revision_not_found")
    with pytest.raises(NotFound):
        await site.fetcher.status(10**30)
    jobs = await site.fetcher.jobs()
    assert [(job.state, job.code) for job in jobs] == [("failed", "revision_not_found"), ("failed", "model_not_found")]


async def test_a_full_disk_is_said_before_a_byte(site: Site, hub: Hub) -> None:
    tight = HubFetcher(site.jobs, site.catalog, site.models, keep_free=1 << 60)
    with pytest.raises(InsufficientStorage) as refused:
        await tight.start(REPO)
    assert refused.value.status == 507
    assert refused.value.details["keep_free_bytes"] == 1 << 60
    assert refused.value.details["needed_bytes"] > 4 * MIB
    assert hub.ranges(BIG) == []


async def test_nothing_that_can_be_used(site: Site, hub: Hub) -> None:
    hub.repos["acme/old"] = HubRepo({"config.json": b"{}", "pytorch_model.bin": b"\x80"})
    with pytest.raises(InvalidRequest, match="no safetensors"):
        await site.fetcher.start("acme/old")


async def test_a_hub_that_names_another_place(site: Site, hub: Hub) -> None:
    hub.repos["acme/evil"] = HubRepo(nano_files(), name="../../outside")
    with pytest.raises(LmxError) as refused:
        await site.fetcher.start("acme/evil")
    assert refused.value.code == "hub_error"
    assert list(site.models.iterdir()) == []


async def test_two_requests_share_one_job(site: Site, hub: Hub) -> None:
    hub.hold(BIG, MIB)
    one, two = await asyncio.gather(site.fetcher.start(REPO), site.fetcher.start(REPO.upper(), "main"))
    assert one.job == two.job
    assert one.state == "running"
    hub.release()
    assert (await site.fetcher.wait(one.job)).state == "done"
    assert len(hub.ranges(BIG)) == 1


@pytest.mark.parametrize(
    ("repo", "revision", "param"),
    [
        ("", None, "model_id"),
        ("nano", None, "model_id"),
        ("../nano", None, "model_id"),
        ("acme/..", None, "model_id"),
        ("acme/a/b", None, "model_id"),
        ("/etc/passwd", None, "model_id"),
        ("acme/na\0no", None, "model_id"),
        ("acme/nano\n", "ma\nin", "revision"),
        ("acme/.hidden", None, "model_id"),
        ("acme/" + "x" * 500, None, "model_id"),
        ("https://example.org/acme/nano", None, "model_id"),
        ("https://huggingface.co@example.org/acme/nano", None, "model_id"),
        ("https://huggingface.co/acme/..%2f..", None, "model_id"),
        ("file:///etc/passwd", None, "model_id"),
        ("http://[/acme/nano", None, "model_id"),
        ("acme/nano", "../../x", "revision"),
        ("acme/nano", "/main", "revision"),
        ("acme/nano", "", "revision"),
        ("acme/nano@v1", "v2", "revision"),
    ],
)
def test_hostile_names_are_refused(repo: str, revision: str | None, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_wanted(repo, revision)
    assert refused.value.param == param


def test_names_that_are_good() -> None:
    assert parse_wanted(" mlx-community/Qwen3-4B-4bit ", None, "4bit").repo == "mlx-community/Qwen3-4B-4bit"
    found = parse_wanted("https://huggingface.co/acme/nano/tree/refs/pr/1")
    assert (found.repo, found.revision) == ("acme/nano", "refs/pr/1")
    with pytest.raises(InvalidRequest, match="quantization"):
        parse_wanted("acme/nano", None, "4bit")


def test_what_is_taken() -> None:
    weights = ["consolidated.safetensors", "model-00001-of-00002.safetensors"]
    small = ["1_Pooling/config.json", "chat_template.jinja", "config.json", "merges.txt", "tokenizer.model"]
    never = ["a.py", "x.bin", "../a.json", "/a.json", "a/../b.json", ".x.json", "onnx/a.json", MANIFEST, "a\n.json"]
    assert take([*never, *weights, *small]) == [*small, weights[1]]
    assert take([weights[0]]) == [weights[0]]


def ask(server: LiveServer, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    answer = httpx2.request(method, server.url + path, json=body, timeout=60)
    return answer.status_code, answer.json()


def test_over_the_api(start_server: Callable[..., LiveServer], hub: Hub) -> None:
    server = start_server()
    hub.hold(BIG, MIB)
    status, body = ask(server, "POST", "/admin/model/download", {"model_id": REPO})
    assert (status, body["job"]["state"], body["path"]) == (202, "running", None)
    job = body["job"]["id"]
    assert ask(server, "POST", f"/admin/jobs/{job}/cancel", {})[1]["state"] == "cancelled"
    hub.release()
    status, body = ask(server, "POST", "/admin/model/download", {"model_id": REPO, "wait": True})
    assert (status, body["model_id"], body["auto_loaded"], body["job"]["state"]) == (200, REPO, False, "done")
    listed = ask(server, "GET", "/admin/jobs?limit=2")[1]["jobs"]
    assert [(one["id"], one["state"]) for one in listed] == [(job + 1, "done"), (job, "cancelled")]
    assert ask(server, "GET", f"/admin/jobs/{job}")[1]["code"] == "job_cancelled"
    for path, said in [(f"/admin/jobs/{job}/cancel", 409), ("/admin/jobs/999/cancel", 404)]:
        assert ask(server, "POST", path, {})[0] == said
    assert ask(server, "GET", "/admin/jobs?limit=0")[0] == 400
    refused = [{}, {"model_id": "../x"}, {"model_id": REPO, "quantization": "8bit"}, {"model_id": REPO, "more": 1}]
    assert [ask(server, "POST", "/admin/model/download", body)[0] for body in refused] == [400] * 4
    assert ask(server, "POST", "/admin/model/load", {"model_id": REPO})[0] == 200


def test_only_owners_may_fetch(start_server: Callable[..., LiveServer], hub: Hub) -> None:
    server = start_server(LMX_SECURITY__API_KEY="client", LMX_SECURITY__ADMIN_KEY="owner")
    routes = [("POST", "/admin/model/download"), ("GET", "/admin/jobs"), ("POST", "/admin/jobs/1/cancel")]
    for method, path in routes:
        for key, said in [("client", 403), ("wrong", 401)]:
            headers = {"Authorization": f"Bearer {key}"}
            answer = httpx2.request(method, server.url + path, json={"model_id": REPO}, headers=headers, timeout=60)
            assert answer.status_code == said
    assert hub.asked == []
