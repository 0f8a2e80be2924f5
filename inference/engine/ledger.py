"""Who holds and was promised how much memory: the supervisor's runs put into the policy's terms."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from inference import ipc
from inference.engine.memory import MemoryWatch, ObservedSizes
from inference.engine.policy import Load, Plan, Refuse, Resident, Situation, need_of, plan, refusal, relieve, room
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
        context = min(run.context or ref.context_length, ref.context_length or run.context or 0)
        reserve = self._settings.memory_reserve_bytes
        return need_of(ref.weight_bytes, ref.kv_bytes_per_token, context, reserve, self.observed.get(ref.id))

    def situation(self, steady: str | None = None) -> Situation:
        """The policy's view of now. ``steady`` names a model that is not to be moved in this plan."""
        residents = [self._resident(run, steady) for run in self._runs.values() if run.client is not None or run.need]
        return Situation(self._watch.reading, self._watch.limits, residents)

    def _resident(self, run: ModelRun, steady: str | None) -> Resident:
        held = max(self.footprint(run), run.returning)
        promised = max(0, run.need - held) if run.state == "loading" else 0
        if run.state == "ready":
            promised = self._kv_promise(run.id)
        return Resident(
            id=run.id,
            held=held,
            promised=promised,
            busy=run.busy,
            pinned=run.pinned or run.id == steady,
            leaving=run.leaving,
            last_used=run.last_used or run.loaded_at or 0.0,
        )

    def plan_load(self, run: ModelRun, *, first: bool, patient: bool = True) -> Plan:
        """A plan for loading; only the first in line may have others evicted, only the patient wait for busy ones."""
        may_evict = first and self._settings.auto_evict_lru
        return plan(self.need(run), self.situation(), may_evict=may_evict, patient=patient)

    def answer_gate(self, run: ModelRun, evict: Callable[[str, str], None], kv_bytes: int) -> bool | LmxError:
        """Whether one more answer of a loaded model fits; asks for evictions where those make room (False: wait)."""
        situation = self.situation(steady=run.id)
        decision = plan(kv_bytes, situation, may_evict=self._settings.auto_evict_lru)
        match decision:
            case Load(evict=victims):
                for victim in victims:
                    evict(victim, f"room for an answer of {run.id}")
                return not victims
            case Refuse():
                return refusal(f"this answer of {short_name(run.id)}", decision, situation, time.time())
            case _:
                return False

    def plan_relief(self) -> str | None:
        """The model to unload because the machine is over ``oom_threshold_percent``."""
        threshold = int(self._watch.reading.total * self._settings.oom_threshold_percent / 100)
        return relieve(self.situation(), threshold) if self._settings.auto_evict_lru and threshold else None

    def free(self) -> int:
        return room(self.situation()).free

    def allowance(self, run: ModelRun) -> int:
        """The most a worker may hold: what it has and all that is free."""
        return max(run.need, self.footprint(run) + max(0, self.free()))

    def share(self) -> None:
        """Tell every worker how much it may hold, now that somebody came or went."""
        for run in self._runs.values():
            if run.state == "ready" and run.client is not None:
                run.client.set_limits(ipc.SetLimits(memory_limit_bytes=self.allowance(run)))

    def numbers(self) -> dict[str, Any]:
        """The two limits, what is free under each, and who holds and was promised what."""
        situation = self.situation()
        reading, left = situation.reading, room(situation)
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
            "promised_bytes": sum(model.promised for model in situation.residents),
            "models": _held_by(situation.residents),
        }


def _held_by(residents: Iterable[Resident]) -> list[dict[str, Any]]:
    return [
        {"id": model.id, "held_bytes": model.held, "promised_bytes": model.promised, "busy": model.busy}
        for model in residents
    ]
