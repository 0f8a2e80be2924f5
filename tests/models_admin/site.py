"""The parts of a server that work on the files of models, on a directory of the test's own; models to spoil."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
from click.testing import CliRunner, Result

from inference.fetching import JobStatus
from lmx_site.cli import main
from models_admin.busy import Busy
from models_admin.catalog import DiskCatalog
from models_admin.disk_keeper import DiskKeeper
from models_admin.disk_ledger import Own
from models_admin.fetch import HubFetcher
from models_admin.jobs import Jobs
from models_admin.manifest import FileEntry, Manifest, sha256_file, write_manifest
from tests.live.process import LiveServer
from tests.material import nano_model

WEIGHTS = "model.safetensors"


class Board:
    """Keeps what is said."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def emit(self, kind: str, /, **fields: object) -> None:
        self.events.append(kind)

    def publish(self, topic: str, payload: dict[str, object] | None, *, key: str | None = None) -> None:
        pass


class Site:
    """``models`` is our own directory, ``others`` are further roots."""

    def __init__(self, models: Path, *others: Path) -> None:
        models.mkdir(exist_ok=True)
        self.models = models
        self.jobs = Jobs(Board())
        self.catalog = DiskCatalog([models, *others])
        self.busy = Busy()
        self.fetcher = HubFetcher(self.jobs, self.catalog, models, keep_free=0, busy=self.busy)
        self.run_states: dict[Path, str] = {}
        self.keeper = DiskKeeper(
            self.jobs,
            self.catalog,
            self.busy,
            own=Own([models], models.parent / "prefix", {}),
            status=self.fetcher.status,
            in_use=self.run_states.items,
            fetched=self.fetcher.repos,
        )

    async def verify(self, model_id: str) -> JobStatus:
        return await self.keeper.wait((await self.keeper.verify(model_id)).job)

    async def fetch(self, repo: str, revision: str | None = None) -> JobStatus:
        return await self.fetcher.wait((await self.fetcher.start(repo, revision)).job)

    async def stop(self) -> None:
        """As a server that stops; the files and the database stay."""
        await self.jobs.stop()
        await self.fetcher.stop()
        await self.keeper.stop()
        self.catalog.close()


@asynccontextmanager
async def site_on(models: Path, *others: Path) -> AsyncIterator[Site]:
    """A site that has looked at its disk; started again on the same directory, it is a server that was restarted."""
    site = Site(models, *others)
    try:
        await site.catalog.refresh()
        yield site
    finally:
        await site.stop()


def copy(target: Path, *, signed: bool = False) -> Path:
    shutil.copytree(nano_model(), target)
    if signed:
        files = {path.name: FileEntry(path.stat().st_size, sha256_file(path)) for path in target.iterdir()}
        write_manifest(target, Manifest("huggingface", "org/model", "r1", files))
    return target


def rot(path: Path) -> None:
    """Another byte with the same size and time, as a disk that forgets."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def ask(server: LiveServer, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    method = "GET" if body is None else "POST"
    answer = httpx2.request(method, server.url + path, json=body, headers=headers, timeout=60)
    return answer.status_code, answer.json()


def lmx(server: LiveServer, *words: str) -> Result:
    return CliRunner().invoke(main, list(words), env={"LMX_URL": server.url, "LMX_KEY": None})
