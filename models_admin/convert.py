"""``ModelConverter``: quantises models and makes MLX models of GGUF files, as jobs. Implements ``Converter``."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inference.catalog import ModelRef
from inference.errors import (
    Conflict,
    InsufficientMemory,
    InsufficientStorage,
    InternalError,
    InvalidRequest,
    LmxError,
    ModelCorrupt,
    ModelNotFound,
    ModelUnavailable,
    TooManyRequests,
)
from inference.fetching import JobStatus
from inference.keeping import Conversion, ConvertTo
from inference.model_files import Unusable
from models_admin.busy import Busy
from models_admin.catalog import DiskCatalog
from models_admin.convert_place import ORG, Needs, converting, needs_of_gguf, needs_of_model, result_name, sweep
from models_admin.fetch import KEEP_FREE_BYTES
from models_admin.gguf_header import READABLE, BadGguf, read_gguf
from models_admin.job_runner import JobFailed
from models_admin.jobs import Jobs
from models_admin.row import Row

log = logging.getLogger(__name__)

PROGRAM = "models_admin.convert_worker"
MAX_AT_ONCE = 1
_GROUP_SIZE = 64
_LONG_PATH = 200


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is made of what. ``held`` is the repository whose files must stay meanwhile, if it is one of ours."""

    source: Path
    target: Path
    to: ConvertTo
    about: dict[str, Any]
    hashes: dict[str, str] = field(default_factory=dict)
    held: str = ""

    @property
    def repo(self) -> str:
        return f"{ORG}/{self.target.name}"


class _Run:
    """One conversion under way. ``job`` is known, or ``failure``, once ``begun`` is set."""

    def __init__(self, plan: _Plan) -> None:
        self.plan = plan
        self.job: int | None = None
        self.begun = asyncio.Event()
        self.failure: LmxError | None = None
        self.task: asyncio.Task[None] | None = None

    def on_start(self, job: int) -> None:
        self.job = job
        self.begun.set()


class ModelConverter:
    """``models`` gets ``local/NAME/``; ``memory`` gives the engine's numbers, ``status`` tells of a job."""

    def __init__(
        self,
        jobs: Jobs,
        catalog: DiskCatalog,
        busy: Busy,
        models: Path,
        *,
        status: Callable[[int], Awaitable[JobStatus]],
        memory: Callable[[], dict[str, Any]],
        keep_free: int = KEEP_FREE_BYTES,
    ) -> None:
        self._jobs, self._catalog, self._busy, self._models = jobs, catalog, busy, models
        self._status, self._memory, self._keep_free = status, memory, keep_free
        self._running: dict[Path, _Run] = {}
        self._starting = asyncio.Lock()

    async def convert(
        self, source: str, to: ConvertTo, *, name: str | None = None, is_path: bool = False
    ) -> Conversion:
        """See ``inference.keeping.Converter``."""
        # One after the other, so that the same twice at once is one.
        async with self._starting:
            plan, needs = await (self._of_file(source, to, name) if is_path else self._of_model(source, to, name))
            run = self._running.get(plan.target)
            if run is None:
                self._check_room(plan, needs, await asyncio.to_thread(self._free, plan.target))
                run = self._running[plan.target] = _Run(plan)
                run.task = asyncio.create_task(self._work(run), name=f"convert {plan.repo}")
            elif run.plan != plan:
                raise Conflict(f"another model is being made under the name {plan.repo}", code="name_taken")
        await run.begun.wait()
        if run.job is None:
            raise run.failure or ModelUnavailable("the server is stopping")
        return Conversion(plan.repo, str(plan.target), await self._status(run.job))

    async def wait(self, conversion: Conversion) -> Conversion:
        """See ``inference.keeping.Converter``."""
        run = self._running.get(Path(conversion.path))
        if run is not None and run.task is not None and run.job == conversion.job.job:
            await asyncio.wait({run.task})
        job = await self._status(conversion.job.job)
        return dataclasses.replace(conversion, job=job, origin=dict(job.result.get("origin") or {}))

    async def sweep(self) -> None:
        """Delete what conversions that were killed have left; for the start of a server."""
        await asyncio.to_thread(sweep, self._models)

    async def stop(self) -> None:
        """Return when nothing runs any more, after ``Jobs.stop``."""
        tasks = [run.task for run in self._running.values() if run.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -------------------------------------------------------------------------------------------- what is to be made

    async def _of_model(self, model_id: str, to: ConvertTo, name: str | None) -> tuple[_Plan, Needs]:
        ref = self._catalog.resolve(model_id)
        row = self._catalog.row(ref.path)
        if row is None:
            raise ModelNotFound(f"the model {model_id!r} is not on this server", param="model_id")
        _check_model(ref, to)
        to = dataclasses.replace(to, group_size=to.group_size or _GROUP_SIZE)
        try:
            needs = await asyncio.to_thread(needs_of_model, ref.path, to)
        except (Unusable, OSError) as error:
            raise ModelUnavailable(f"{ref.id} cannot be read: {error}") from error
        about = {"repo": row.found.repo, "revision": row.found.revision, "source": row.found.source}
        return _Plan(ref.path, self._target(ref.id, to, name), to, about, _known(row), row.found.repo), needs

    async def _of_file(self, source: str, to: ConvertTo, name: str | None) -> tuple[_Plan, Needs]:
        path = Path(source)
        if "\0" in source or not path.is_absolute() or path.suffix.lower() != ".gguf":
            raise InvalidRequest("path must be the absolute path of a .gguf file on the server's disk", param="path")
        shown = source[:_LONG_PATH]
        try:
            header = await asyncio.to_thread(read_gguf, path)
        except BadGguf as error:
            raise InvalidRequest(f"{shown} {error}", code="unsupported_model", param="path") from error
        except OSError as error:
            raise InvalidRequest(f"{shown} cannot be read: {error.strerror or error}", param="path") from error
        odd = sorted(set(header.kinds) - READABLE)
        if header.architecture != "llama" or odd:
            what = f"{', '.join(odd)} tensors" if odd else f"a {header.architecture[:80]!r} model"
            raise InvalidRequest(
                f"{shown} holds {what}; what is converted is the Llama family as {', '.join(sorted(READABLE))}",
                code="unsupported_model",
                param="path",
            )
        to = _for_file(to, header.own_bits)
        needs = needs_of_gguf(header, to)
        about = {"repo": path.name, "revision": "", "source": str(path)}
        return _Plan(path, self._target(path.name, to, name), to, about), needs

    def _target(self, source: str, to: ConvertTo, name: str | None) -> Path:
        target = self._models / ORG / result_name(source.split("@")[0], to.bits, name)
        if os.path.lexists(target):
            raise Conflict(
                f"{ORG}/{target.name} is there already: delete it, or choose another name", code="name_taken"
            )
        return target

    # --------------------------------------------------------------------------------------------------- the doing

    @staticmethod
    def _free(target: Path) -> int:
        place = target.parent
        while not place.exists():
            place = place.parent
        return shutil.disk_usage(place).free

    def _check_room(self, plan: _Plan, needs: Needs, free: int) -> None:
        if len(self._running) >= MAX_AT_ONCE:
            raise TooManyRequests("another model is being converted; wait for it", retry_after=60)
        if plan.held:
            self._busy.check(plan.held, "convert")
        if free - self._keep_free < needs.disk:
            raise InsufficientStorage(
                f"{plan.repo} needs about {needs.disk} bytes in {plan.target.parent}, but {free} are free there and "
                f"{self._keep_free} of them must stay free. Free some space and start it again.",
                details={"needed_bytes": needs.disk, "free_bytes": free, "keep_free_bytes": self._keep_free},
            )
        left = int(self._memory().get("free_bytes", needs.memory))
        if left < needs.memory:
            raise InsufficientMemory(
                f"making {plan.repo} takes about {needs.memory} bytes of memory at its highest, but {left} are free. "
                "Unload a model first.",
                details={"needed_bytes": needs.memory, "free_bytes": left},
            )

    async def _work(self, run: _Run) -> None:
        plan = run.plan
        try:
            if not plan.held:
                await self._run(run)
                return
            with self._busy.work(plan.held, "convert"):
                await self._run(run)
        except LmxError as error:
            run.failure = error
        except Exception:
            log.exception("converting %s", plan.repo)
            run.failure = InternalError("the conversion ended by a defect: see the log")
        finally:
            del self._running[plan.target]
            run.begun.set()

    async def _run(self, run: _Run) -> None:
        plan = run.plan
        params: dict[str, Any] = {"source": str(plan.source), "target": str(plan.target), "repo": plan.repo}
        params |= dataclasses.asdict(plan.to) | {"about": plan.about, "hashes": plan.hashes}
        try:
            await self._jobs.run(
                "convert",
                PROGRAM,
                params | {"keep_free": self._keep_free},
                subject=plan.repo,
                on_progress=lambda progress: None,
                on_start=run.on_start,
                settle=lambda result: self._settle(plan, result),
            )
        except JobFailed as failure:
            run.failure = failure

    async def _settle(self, plan: _Plan, result: dict[str, Any] | None) -> None:
        """Whoever hears that it is done finds the model in the catalog; a killed child could not tidy up."""
        if result is None:
            await asyncio.to_thread(shutil.rmtree, converting(plan.target), ignore_errors=True)
        else:
            await self._catalog.refresh()


def _check_model(ref: ModelRef, to: ConvertTo) -> None:
    if ref.problem is not None:
        if ref.disk_state == "corrupt":
            raise ModelCorrupt(f"{ref.id} cannot be converted: {ref.problem}", details={"files": list(ref.bad_files)})
        raise ModelUnavailable(f"{ref.id} cannot be converted: {ref.problem}")
    if ref.kind != "llm":
        raise InvalidRequest(
            f"{ref.id} makes vectors; only models that answer in words are converted",
            code="unsupported_model",
            param="model_id",
        )
    if to.bits is None:
        raise InvalidRequest("say how many bits: 3, 4, 6 or 8", param="to")
    width = (ref.quantization or "").removesuffix("bit")
    has = int(width) if width.isdigit() else None
    if has is not None and has <= to.bits:
        raise InvalidRequest(
            f"{ref.id} has {has} bits already: what is lost does not come back with more of them",
            code="unsupported_model",
            param="to",
        )


def _for_file(to: ConvertTo, own: int | None) -> ConvertTo:
    """Integers of the same width are taken as they are: packing them anew would only lose."""
    if own is not None and to.bits == own and to.group_size in (None, 32):
        to = dataclasses.replace(to, bits=None)
    if to.bits is None:
        if own is None:
            raise InvalidRequest("the file is not quantised: say how many bits, 3, 4, 6 or 8", param="to")
        return dataclasses.replace(to, group_size=32)
    return dataclasses.replace(to, group_size=to.group_size or _GROUP_SIZE)


def _known(row: Row) -> dict[str, str]:
    """The SHA-256 of its files, as published or as first seen."""
    seen = {check.name: check.expected for check in row.checks.values() if check.expected}
    return {**seen, **(row.hashes or {})}
