"""The composition root: the only module that knows all the apps. It builds every long-lived part, once.

``start()``: hub, telemetry writer, jobs, catalog (first scan), memory reader, engine, API, then the background tasks.
``drain()``: jobs are cancelled; the engine refuses new requests, finishes the running ones, ends its workers.
``stop()``: the rest, in reverse. The parts are imported inside ``start`` so that importing this module costs nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmx_site import __version__
from lmx_site.config import Config
from lmx_site.event_log import log_event
from lmx_site.home import Places
from lmx_site.supervise import keep_running

if TYPE_CHECKING:
    from inference.engine.engine import WorkerEngine
    from inference.protocols.responses.background import Responses
    from models_admin.busy import Busy
    from models_admin.catalog import DiskCatalog
    from models_admin.decisions import Decisions
    from models_admin.disk_keeper import DiskKeeper
    from models_admin.fetch import HubFetcher
    from models_admin.hub_finder import HubFinder
    from models_admin.jobs import Jobs
    from models_admin.keeping import Keeping
    from models_admin.quota import ModelsQuota
    from models_admin.schedule import Wishes
    from monitoring.hub import Hub
    from monitoring.telemetry import TelemetryWriter

logger = logging.getLogger(__name__)

RESCAN_S = 30.0


class Runtime:
    """Everything that lives as long as the server. All methods belong to the server's event loop."""

    def __init__(self, config: Config, home: Path, places: Places) -> None:
        self.config = config
        self.home = home
        self.places = places
        self.catalog: DiskCatalog | None = None
        self.engine: WorkerEngine | None = None
        self.jobs: Jobs | None = None
        self._fetcher: HubFetcher | None = None
        self._keeper: DiskKeeper | None = None
        self._finder: HubFinder | None = None
        self._keeping: Keeping | None = None
        self._telemetry: TelemetryWriter | None = None
        self._responses: Responses | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Build and start all parts. Whatever it raises, ``stop()`` must still be called."""
        from inference.engine import set_engine
        from inference.engine.engine import WorkerEngine
        from lmx_site.audit import server_started, set_audit
        from models_admin.admin_actions import set_loop
        from models_admin.busy import Busy
        from models_admin.decisions import Decisions
        from models_admin.jobs import Jobs
        from models_admin.keeping import Keeping
        from monitoring.hub import Hub, set_hub
        from monitoring.readings import open_reader
        from monitoring.sampler import Sampler
        from monitoring.telemetry import TelemetryWriter

        hub = Hub()
        hub.tap(log_event)
        set_hub(hub)
        kept = self.config.logging
        telemetry = self._telemetry = TelemetryWriter(hub, history_days=kept.history_days, audit_days=kept.audit_days)
        set_audit(telemetry.audit)
        telemetry.audit(server_started(self.config.model_dump_json()))
        await telemetry.start()
        self.jobs = Jobs(hub)
        await self.jobs.start()
        decisions, busy = Decisions(), Busy()
        await decisions.load()
        catalog = self.catalog = await self._open_catalog(decisions)
        set_loop(asyncio.get_running_loop())
        self._fetcher, self._keeper = self._open_keepers(self.jobs, catalog, busy)
        settings = self.config.engine_settings(self.home)
        self.engine = WorkerEngine(settings, catalog, open_reader(), records=telemetry, events=hub)
        await self.engine.start()
        set_engine(self.engine)
        parts = self.jobs, catalog, decisions, busy, self._fetcher, self._keeper, self.engine
        keeping = self._keeping = Keeping(
            *parts, events=hub, models=self.places.models, gate=self.home / "run" / "quiet.lock", wishes=self._wishes()
        )
        self._responses = await self._open_responses()
        self._tell_api(hub, keeping, self._open_finder(catalog, self.engine, self._fetcher))
        await self._fetcher.go_on()
        keeping.start()
        chores = {"catalog-scan": self._rescan, "unfinished deletions": self._keeper.finish_deletions}
        for name, chore in {"sampler": Sampler(hub, self.engine).run, **chores, **keeping.chores()}.items():
            self.background(name, chore)

    def _tell_api(self, hub: Hub, keeping: Keeping, finder: HubFinder) -> None:
        from inference.api import deps
        from models_admin.settings import SettingsBook
        from monitoring.audit import AuditLog

        assert self.catalog is not None
        assert self.engine is not None
        deps.configure(
            catalog=self.catalog,
            events=hub,
            strict=self.config.server.strict,
            version=__version__,
            responses=self._responses,
            fetcher=self._fetcher,
            keeper=self._keeper,
            audit=AuditLog(),
            settings=SettingsBook(self.catalog, self.config.model_standards(), self.engine.apply_settings),
            finder=finder,
            updater=keeping.updates,
            converter=keeping.converter,
        )

    def _wishes(self) -> Wishes:
        from models_admin.schedule import Wishes

        models = self.config.models
        keep_free = int(models.keep_free_gb * 1024**3)
        return Wishes(models.check_updates, models.verify_every_days, models.keep_revisions_days, keep_free)

    async def _open_catalog(self, decisions: Decisions) -> DiskCatalog:
        from models_admin import lmstudio
        from models_admin.catalog import DiskCatalog
        from models_admin.settings_shelf import SettingsShelf

        models, studio = self.config.models, lmstudio.find_home()
        catalog = DiskCatalog(
            self.places.roots,
            default_model=models.default_model,
            aliases=models.aliases,
            studio=studio,
            settings=SettingsShelf(self.config.settings_of_models()),
            standing=decisions.standing,
        )
        await catalog.refresh()
        return catalog

    def _open_fetcher(self, jobs: Jobs, catalog: DiskCatalog, busy: Busy, quota: ModelsQuota | None) -> HubFetcher:
        from models_admin.fetch import HubFetcher, patience

        wanted = self.config.models
        return HubFetcher(
            jobs,
            catalog,
            self.places.models,
            keep_free=int(wanted.keep_free_gb * 1024**3),
            busy=busy,
            at_once=wanted.max_downloads,
            patience=patience(wanted.download_retry_sec),
            load=self._load_fetched,
            quota=quota,
        )

    def _open_keepers(self, jobs: Jobs, catalog: DiskCatalog, busy: Busy) -> tuple[HubFetcher, DiskKeeper]:
        """What brings models and what keeps them in order; the two never work on one model at once."""
        from lmx_site.own_places import own_places
        from models_admin.disk_keeper import DiskKeeper
        from models_admin.quota import ModelsQuota

        own = own_places(self.home, self.places, self.config.disk_quotas())
        limit = own.quotas.get("models")
        quota = None if limit is None else ModelsQuota(limit, own.models, catalog.all)
        fetcher = self._open_fetcher(jobs, catalog, busy, quota)
        keeper = DiskKeeper(
            jobs,
            catalog,
            busy,
            own=own,
            status=fetcher.status,
            in_use=self._running,
            running=self._running_ids,
            fetched=fetcher.repos,
        )
        return fetcher, keeper

    def _open_finder(self, catalog: DiskCatalog, engine: WorkerEngine, fetcher: HubFetcher) -> HubFinder:
        from models_admin.hub_client import HubClient
        from models_admin.hub_finder import HubFinder

        wanted = self.config.models
        self._finder = HubFinder(
            HubClient(),
            catalog,
            self.places.models,
            judge=engine.memory_fit,
            preference=wanted.quantization_preference,
            keep_free=int(wanted.keep_free_gb * 1024**3),
        )
        fetcher.chooser = self._finder.choose
        return self._finder

    def _running(self) -> Iterable[tuple[Path, str]]:
        """The directories of the models that run, and how."""
        return self.engine.directories() if self.engine else ()

    async def _load_fetched(self, model: str) -> None:
        if self.engine is not None:
            await self.engine.load(model, context=None, slots=None, pin=None)

    def _running_ids(self) -> Iterable[str]:
        """The same by the names that they were loaded under."""
        states = ("loading", "ready", "draining")
        return [status.id for status in self.engine.models() if status.state in states] if self.engine else ()

    def background(self, name: str, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        """Run ``work`` supervised until it returns or the runtime stops."""
        task = asyncio.create_task(keep_running(name, work), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def tasks(self) -> set[asyncio.Task[Any]]:
        """The runtime's own tasks, which end with ``stop()`` and not before."""
        return set(self._tasks)

    async def drain(self) -> None:
        """Cancel the jobs, then end all generation: politely for ``engine.answers_sec``, then by cancelling."""
        if self.jobs is not None:
            await self.jobs.stop()
        if self._fetcher is not None:
            await self._fetcher.stop()
        if self._keeper is not None:
            await self._keeper.stop()
        if self._finder is not None:
            await self._finder.stop()
        if self._keeping is not None:
            await self._keeping.stop()
        if self.engine is not None:
            await self.engine.stop(self.config.engine.answers_sec)

    async def stop(self) -> None:
        """End what is left, after ``drain``. Flushes the telemetry. Safe after a failed start."""
        from inference.api import deps
        from inference.engine import set_engine
        from lmx_site.audit import set_audit
        from models_admin.admin_actions import set_loop
        from monitoring.hub import set_hub

        tasks = self.tasks()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        deps.configure()
        set_engine(None)
        set_loop(None)
        if self._responses is not None:
            await self._responses.store.stop()
        if self._telemetry is not None:
            await self._telemetry.stop()
        set_audit(None)
        set_hub(None)
        if self.catalog is not None:
            await asyncio.to_thread(self.catalog.close)

    def offer_demo(self, say: Callable[[str], None], done: Callable[[str], None]) -> None:
        """Bring the demo model in the background where there is no model; ``done`` gets its id."""
        from lmx_site.demo import bring_demo

        catalog, jobs = self.catalog, self.jobs
        assert catalog is not None
        assert jobs is not None

        async def bring() -> None:
            name = await bring_demo(self.home, catalog, jobs, say)
            if name is not None:
                done(name)

        self.background("demo", bring)

    async def _open_responses(self) -> Responses:
        from inference.protocols.responses.background import Responses
        from inference.protocols.responses.disk import Bounds, Disk
        from inference.protocols.responses.store import ResponseStore

        wanted = self.config.responses
        bounds = Bounds(wanted.max_count, wanted.max_mb * 1024 * 1024, wanted.days)
        responses = Responses(ResponseStore(Disk(bounds) if wanted.store else None))
        await responses.store.start()
        return responses

    async def _rescan(self) -> None:
        while self.catalog is not None:
            await asyncio.sleep(RESCAN_S)
            await self.catalog.refresh()


_runtime: Runtime | None = None


def set_runtime(runtime: Runtime | None) -> None:
    """The runtime of this process; None where there is none (any more)."""
    global _runtime
    _runtime = runtime


def get_runtime() -> Runtime:
    """The runtime of this process; ``RuntimeError`` outside a server."""
    if _runtime is None:
        raise RuntimeError("no server runs in this process")
    return _runtime
