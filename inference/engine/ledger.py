"""Who holds and was promised how much memory: the supervisor's runs put into the policy's terms."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from inference.engine.contract import MemoryFit, Size
from inference.engine.fitting import judge
from inference.engine.memory import MemoryWatch, ObservedSizes
from inference.engine.policy import (
    Load,
    Plan,
    Refuse,
    Resident,
    Shrink,
    Situation,
    need_of,
    plan,
    refusal,
    relieve,
    room,
    without_caches,
)
from inference.engine.runs import ModelRun
from inference.engine.settings import EngineSettings
from inference.engine.words import short_name
from inference.errors import LmxError

_RETURN_POLL_S = 0.02
_RETURN_LIMIT_S = 10.0
_RETURN_NOISE = 256 * 1024 * 1024

KvPromise = Callable[[str], int]
"""KV bytes that the running answers of a model may still take."""


class Ledger:
    """Reads the runs, changes none. Sizes in bytes."""

    def __init__(
        self, settings: EngineSettings, watch: MemoryWatch, runs: Mapping[str, ModelRun], kv_promise: KvPromise
    ) -> None:
        self._settings = settings
        self._watch = watch
        self._runs = runs
        self._kv_promise = kv_promise
        self.observed = ObservedSizes(settings.run_dir)

    def footprint(self, run: ModelRun) -> int:
        return self._watch.footprints.get(run.client.pid, 0) if run.client is not None else 0

    def pids(self) -> list[int]:
        return [run.client.pid for run in self._runs.values() if run.client is not None]

    async def measure(self) -> None:
        await self._watch.measure(self.pids())

    async def returned(self, pid: int, held: int, used_before: int) -> bool:
        """Wait until the memory of a process that is gone is back; False if it is not after some seconds.

        Other programs move too, so nine tenths of what it held, less a little, counts as all of it.
        """
        deadline = time.monotonic() + _RETURN_LIMIT_S
        expected = used_before - held * 0.9 + _RETURN_NOISE
        while time.monotonic() < deadline:
            await self.measure()
            if self._watch.footprints.get(pid, 0) == 0 and self._watch.reading.used <= expected:
                return True
            await asyncio.sleep(_RETURN_POLL_S)
        return False

    def need(self, run: ModelRun) -> int:
        ref = run.ref
        wanted = run.wanted_context
        context = min(wanted or ref.context_length, ref.context_length or wanted or 0)
        reserve = self._settings.memory_reserve_bytes
        return need_of(ref.weight_bytes, ref.kv_bytes_per_token, context, reserve, self.observed.get(ref.id))

    def situation(self, steady: str | None = None) -> Situation:
        """The policy's view of now. ``steady`` names a model that is not to be moved in this plan."""
        residents = [self._resident(run, steady) for run in self._runs.values() if run.client is not None or run.need]
        return Situation(self._watch.reading, self._watch.limits, residents)

    def _resident(self, run: ModelRun, steady: str | None) -> Resident:
        held = max(self.footprint(run), run.returning)
        promised, cached, cache_room, returning = 0, 0, 0, 0
        if run.state == "loading":
            promised = max(0, run.need - held) + run.cache_limit
        elif run.state == "ready" and not run.leaving:
            cached, cache_room = self.cached(run), run.cache_limit - self.cached(run)
            promised, returning = self._kv_promise(run.id) + cache_room, run.prefix_bytes - cached
        return Resident(
            id=run.id,
            held=held,
            promised=promised,
            cached=min(cached, held),
            cache_room=cache_room,
            returning=min(returning, held),
            busy=run.busy,
            pinned=run.pinned or run.id == steady,
            leaving=run.leaving,
            last_used=run.last_used or run.loaded_at or 0.0,
        )

    def plan_load(self, run: ModelRun, *, first: bool, patient: bool = True) -> Plan:
        """A plan for loading; only the first in line may have others give way, only the patient wait for busy ones."""
        may_evict = first and self._settings.auto_evict_lru
        return plan(self.need(run), self.situation(), may_evict=may_evict, patient=patient, may_shrink=first)

    def cached(self, run: ModelRun) -> int:
        """What its prefix cache holds and may keep; more than that it was told to give back."""
        return min(run.prefix_bytes, run.cache_limit)

    def plan_answer(self, run: ModelRun, kv_bytes: int) -> Plan:
        """A plan for one more answer of a loaded model, which itself stays."""
        return plan(kv_bytes, self.situation(steady=run.id), may_evict=self._settings.auto_evict_lru)

    def answer_refusal(self, run: ModelRun, decision: Refuse) -> LmxError:
        what = f"this answer of {short_name(run.id)}"
        return refusal(what, decision, self.situation(steady=run.id), time.time())

    def plan_relief(self) -> Shrink | Load | None:
        """What to do because the machine is over ``oom_threshold_percent``; None when it is not."""
        threshold = int(self._watch.reading.total * self._settings.oom_threshold_percent / 100)
        if not threshold:
            return None
        return relieve(self.situation(), threshold, may_evict=self._settings.auto_evict_lru)

    def spare(self) -> int:
        """What nobody holds and nobody was promised."""
        return max(0, room(self.situation()).free)

    def free(self) -> int:
        """What a model could have without another's being unloaded: what is spare, and the caches."""
        return room(without_caches(self.situation())).free

    def allowance(self, run: ModelRun) -> int:
        """The most a worker may hold: what it has, what its cache was promised, and all that is spare."""
        room_of_cache = run.cache_limit - self.cached(run) if run.state == "ready" else 0
        return max(run.need + run.cache_limit, self.footprint(run) + room_of_cache + self.spare())

    def fit(self, size: Size, context: int | None, model_id: str | None) -> MemoryFit:
        """See ``contract.Engine.memory_fit``."""
        run = self._runs.get(model_id) if model_id else None
        there = run is not None and run.client is not None
        observed = self.observed.get(model_id) if model_id else 0
        reserve = self._settings.memory_reserve_bytes
        own = model_id if there else None
        return judge(size, self.situation(), reserve, context=context, observed=observed, own=own)

    def numbers(self) -> dict[str, Any]:
        """The two limits, what is free under each, and who holds and was promised what."""
        situation = self.situation()
        reading, left = situation.reading, room(without_caches(situation))
        return {
            "total_bytes": reading.total,
            "used_bytes": reading.used,
            "available_bytes": reading.available,
            "machine_limit_bytes": situation.limits.machine,
            "machine_limit_percent": self._settings.max_memory_percent,
            "gpu_limit_bytes": situation.limits.gpu,
            "reserve_bytes": self._settings.memory_reserve_bytes,
            "machine_free_bytes": max(0, left.machine),
            "gpu_free_bytes": None if left.gpu is None else max(0, left.gpu),
            "free_bytes": max(0, left.free),
            "promised_bytes": sum(model.promised - model.cache_room for model in situation.residents),
            "prefix_cache_bytes": sum(model.cached for model in situation.residents),
            "models": _held_by(situation.residents),
        }


def _held_by(residents: Iterable[Resident]) -> list[dict[str, Any]]:
    return [
        {
            "id": model.id,
            "held_bytes": model.held,
            "promised_bytes": model.promised - model.cache_room,
            "busy": model.busy,
        }
        for model in residents
    ]
