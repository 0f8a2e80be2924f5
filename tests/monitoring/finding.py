"""A finder and a fetcher in memory, with the answers and gates that a test sets."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from inference.engine.contract import MemoryFit, Place
from inference.errors import LmxError, NotFound
from inference.fetching import JobStatus
from inference.finding import DiskRoom, Found, HubFile, HubModel, ModelView, Query, Verdict
from tests.monitoring.fakes import GIB

COMMIT = "5" * 40
NANO = HubModel(
    "acme/nano-4bit",
    "acme",
    COMMIT,
    "mlx",
    "llama",
    "4bit",
    parameters=4_020_000_000,
    weight_bytes=2 * GIB,
    downloads=1_234_567,
    likes=42,
    updated_at=1_700_000_000.0,
    licence="mit",
)
MEMORY = MemoryFit(
    32_768, 6 * GIB, 0, 72 * GIB, 10 * GIB, Place(50 * GIB, True, 131_072), Place(62 * GIB, True, 131_072)
)
FITS = Verdict(
    "acme/nano-4bit",
    "hub",
    "fits",
    "Fits with 32k tokens of context.",
    revision=COMMIT,
    kv_bytes_per_token=131_072,
    context_length=131_072,
    weight_bytes=2 * GIB,
    memory=MEMORY,
    disk=DiskRoom(2 * GIB, 0, 100 * GIB, GIB, True),
)


class FakeFinder:
    """Implements ``inference.finding.Finder``. ``refuse`` is what everything raises; ``gate`` holds every answer."""

    def __init__(self) -> None:
        self.found = Found((NANO,))
        self.shown = ModelView(NANO, FITS, (HubFile("model.safetensors", 2 * GIB, True),), fetched_bytes=2 * GIB)
        self.queries: list[Query] = []
        self.refuse: LmxError | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def search(self, query: Query) -> Found:
        self.queries.append(query)
        await self._answer()
        return self.found

    async def view(self, model_id: str, revision: str | None = None) -> ModelView:
        await self._answer()
        return self.shown

    async def fit(self, model_id: str, context: int | None = None, *, brief: bool = False) -> Verdict:
        await self._answer()
        return self.shown.verdict

    async def _answer(self) -> None:
        await self.gate.wait()
        if self.refuse is not None:
            raise self.refuse


class FakeFetcher:
    """Implements ``inference.fetching.Fetcher`` with one job."""

    def __init__(self) -> None:
        self.job = JobStatus(7, "fetch", "acme/nano-4bit", "running", "download", 5, 10, message="5 of 10 MB")
        self.started: list[tuple[str, str | None]] = []
        self.listed: list[JobStatus] = []
        self.refuse: LmxError | None = None

    async def start(
        self, repo: str, revision: str | None = None, quantization: str | None = None, *, auto_load: bool = False
    ) -> JobStatus:
        self.started.append((repo, revision))
        return self._told()

    async def wait(self, job: int) -> JobStatus:
        return self._told()

    async def status(self, job: int) -> JobStatus:
        if job != self.job.job:
            raise NotFound("there is no such job")
        return self.job

    async def jobs(self, limit: int = 100) -> list[JobStatus]:
        return self.listed

    async def cancel(self, job: int) -> JobStatus:
        self.job = self._told()
        self.job = replace(self.job, state="cancelled")
        return self.job

    async def pause(self, job: int) -> JobStatus:
        return self._told()

    async def resume(self, job: int) -> JobStatus:
        return self._told()

    def _told(self) -> JobStatus:
        if self.refuse is not None:
            raise self.refuse
        return self.job
