"""Real worker processes with the fake backend, a catalog in memory and sinks that keep what they get."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from inference.catalog import ModelRef
from inference.engine.contract import MemoryReading, ModelStatus
from inference.engine.engine import WorkerEngine
from inference.engine.generation import RunningGeneration
from inference.engine.settings import EngineSettings
from inference.errors import ModelNotFound
from inference.ipc import Delta, Failed, Finished, GenerateRequest, RequestEvent
from inference.principal import Principal
from inference.records import RequestRecord

GIB = 1024**3
PATIENCE_S = 20.0


async def until(condition: Callable[[], bool], what: str = "") -> None:
    """Return once ``condition()`` holds; the limit only keeps a broken test from hanging."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)


class Gate:
    """A gate of the fake backend: ``reached`` waits for the fake to stand before it, ``open`` lets it pass."""

    def __init__(self, directory: Path) -> None:
        self.path = str(directory / f"gate-{uuid.uuid4().hex[:8]}")

    async def reached(self) -> None:
        await until(Path(self.path + ".reached").exists)

    def open(self) -> None:
        Path(self.path).touch()


class ListCatalog:
    """Models that exist because a test made them."""

    def __init__(self) -> None:
        self.refs: dict[str, ModelRef] = {}

    def all(self) -> list[ModelRef]:
        return [self.refs[name] for name in sorted(self.refs)]

    async def recheck(self, ref: ModelRef) -> ModelRef:
        return ref

    def resolve(self, name: str) -> ModelRef:
        try:
            return self.refs[name]
        except KeyError:
            raise ModelNotFound(f"there is no model {name}") from None


class MemoryMeter:
    """A machine of 64 GiB whose use the test sets; footprints are what the test says, else a process's size."""

    def __init__(self) -> None:
        self.total = 64 * GIB
        self.used = 4 * GIB
        self.gpu_limit: int | None = None
        self.sizes: dict[int, int] = {}

    def read(self) -> MemoryReading:
        return MemoryReading(self.total, self.total - self.used, self.used, self.gpu_limit)

    def footprint(self, pid: int) -> int:
        if not psutil.pid_exists(pid):
            return 0
        return self.sizes.get(pid, 50 * 1024 * 1024)


class Records:
    def __init__(self) -> None:
        self.kept: list[RequestRecord] = []

    def put(self, record: RequestRecord) -> None:
        self.kept.append(record)


class Events:
    def __init__(self) -> None:
        self.kept: list[tuple[str, dict[str, Any]]] = []

    def emit(self, kind: str, /, **fields: Any) -> None:
        self.kept.append((kind, fields))

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [fields for name, fields in self.kept if name == kind]


class World:
    """An engine with all it needs, for one test."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.catalog = ListCatalog()
        self.meter = MemoryMeter()
        self.records = Records()
        self.events = Events()
        self.engine: WorkerEngine
        self._numbers = iter(range(1, 1_000_000))

    def add_model(self, name: str, *, weight_bytes: int = 1024, problem: str | None = None, **script: Any) -> ModelRef:
        path = self.directory / "models" / name
        path.mkdir(parents=True, exist_ok=True)
        (path / "config.json").write_text("{}")
        (path / "fake.json").write_text(json.dumps(script))
        ref = ModelRef(
            name,
            path,
            weight_bytes=weight_bytes,
            context_length=script.get("context", 32768),
            kv_bytes_per_token=script.get("kv_bytes_per_token", 0),
            problem=problem,
        )
        self.catalog.refs[name] = ref
        return ref

    def settings(self, **changes: Any) -> EngineSettings:
        defaults: dict[str, Any] = {"worker_backend": "fake", "memory_reserve_bytes": 1024, "heartbeat_s": 0.2}
        return EngineSettings(run_dir=self.directory / "run", **(defaults | changes))

    async def begin(self, **changes: Any) -> WorkerEngine:
        self.engine = WorkerEngine(self.settings(**changes), self.catalog, self.meter, self.records, self.events)
        await self.engine.start()
        return self.engine

    def gate(self) -> Gate:
        return Gate(self.directory)

    def record(self, model: str = "a", client: str = "tester") -> RequestRecord:
        principal = Principal("anonymous", client, frozenset({"inference"}))
        return RequestRecord(f"req-{next(self._numbers)}", "openai", "/v1/chat/completions", principal, model)

    async def ask(
        self, model: str = "a", text: str = "hello", *, client: str = "tester", **script: Any
    ) -> RunningGeneration:
        """Start a request whose prompt carries ``script`` as directives."""
        fields = {name: script.pop(name) for name in ("n", "max_tokens", "stop") if name in script}
        prompt = text + (f" <<fake {json.dumps(script)}>>" if script else "")
        request = GenerateRequest(prompt=prompt, **fields)
        return await self.engine.generate(model, request, self.record(model, client))

    def pid(self, model: str) -> int:
        pid = self.status(model).pid
        assert pid is not None
        return pid

    def status(self, model: str) -> ModelStatus:
        return next(status for status in self.engine.models() if status.id == model)

    async def worker_running(self, model: str, count: int) -> None:
        """Wait for the worker itself to say that so many requests run in it, in a report younger than this call."""
        old = self.status(model).stats

        def reported() -> bool:
            stats = self.status(model).stats
            return stats is not None and stats is not old and stats.running == count

        await until(reported)


async def collect(generation: RunningGeneration) -> list[RequestEvent]:
    """Every event to the end."""
    events: list[RequestEvent] = []
    async with generation, asyncio.timeout(PATIENCE_S):
        async for batch in generation:
            events += batch
    return events


def text_of(events: list[RequestEvent], choice: int = 0) -> str:
    return "".join(e.content for e in events if isinstance(e, Delta) and e.choice == choice)


def last(events: list[RequestEvent]) -> Finished | Failed:
    event = events[-1]
    assert isinstance(event, Finished | Failed)
    return event


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else psutil.Process().num_fds()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """An engine's surroundings with models ``a`` and ``b``; whatever engine the test began is stopped after it."""
    world = World(tmp_path)
    world.add_model("a")
    world.add_model("b")
    yield world
    if hasattr(world, "engine"):
        await world.engine.stop(0.0)
        assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        assert not [child for child in psutil.Process().children() if "inference.worker" in _command(child)]


def _command(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""
