"""Which request gets a slot, and which prompt gets the next prefill chunk."""

from __future__ import annotations

from collections import deque
from typing import Any

from inference.worker.core.caches import ModelFacts
from inference.worker.core.prefill import PrefillJob, together
from inference.worker.core.prefix_cache import PrefixCache
from inference.worker.core.prefix_store import common_length
from inference.worker.core.rows import Running

_WORTH_WAITING = 256


class Admission:
    """Started requests that wait for a slot, and those that have one and are being prefilled.

    Slots are given in order of arrival. Chunks go in turn to the oldest prompt and to the one with the least left, so
    that neither a long prompt nor the short ones behind it wait for the whole of the other. A prompt waits while
    another computes a long beginning that both have in common.
    """

    def __init__(self, model: Any, facts: ModelFacts, slots: int, prefixes: PrefixCache | None = None) -> None:
        self._model = model
        self._facts = facts
        self._prefixes = prefixes
        self.slots = max(slots, 1)
        self._waiting: deque[Running] = deque()
        self._jobs: list[PrefillJob] = []
        self._oldest_next = True

    @property
    def has_work(self) -> bool:
        return bool(self._waiting or self._jobs)

    @property
    def queued(self) -> int:
        return len(self._waiting)

    def jobs(self) -> list[PrefillJob]:
        """Prompts being prefilled."""
        return self._jobs

    def add(self, running: Running) -> None:
        self._waiting.append(running)

    def remove(self, running: Running) -> None:
        """Forget a request that has ended, wherever it is."""
        if running in self._waiting:
            self._waiting.remove(running)
        for job in self._jobs:
            if running in job.running and not any(one.open_rows for one in job.running):
                job.keep()
                self._jobs.remove(job)
                return

    def admit(self, decoding_rows: int) -> list[Running]:
        """Give free slots to the requests at the head of the queue, and return those."""
        if not self._waiting:
            return []
        used = decoding_rows + sum(one.open_rows for job in self._jobs for one in job.running)
        admitted = []
        while self._waiting and self._fits(self._waiting[0], used):
            running = self._waiting.popleft()
            used += running.open_rows
            self._jobs.append(self._job(running))
            admitted.append(running)
        return admitted

    def _job(self, running: Running) -> PrefillJob:
        job = PrefillJob(self._model, [running], self._facts.batching, self._prefixes)
        if self._prefixes is not None and self._prefixes.enabled and running.scores is None:
            job.expected = self._prefixes.match(running.prompt)
            self._line_up(job, self._prefixes)
        return job

    def _line_up(self, job: PrefillJob, prefixes: PrefixCache) -> None:
        """Let ``job`` wait for the one that has most in common with it, if that is worth it."""
        common, leader = 0, None
        for other in self._jobs:
            if len(other.running) == 1:
                length = common_length(other.prompt, job.prompt)
                if length > common and (prefixes.layout.cuttable or other.done <= length):
                    common, leader = length, other
        if leader is not None and common >= job.expected + _WORTH_WAITING and prefixes.worth_waiting(common):
            leader.places.add(common)
            job.behind = leader, common
            if leader.done >= common:
                leader.keep()

    def _waits(self, job: PrefillJob) -> bool:
        if job.behind is None:
            return False
        leader, common = job.behind
        lives = self._prefixes is not None and self._prefixes.enabled and leader in self._jobs
        if lives and not (leader.begun and leader.done >= common):
            return True
        job.behind = None
        if self._prefixes is not None:
            job.expected = self._prefixes.match(job.running[0].prompt)
        return False

    def _fits(self, running: Running, used: int) -> bool:
        return not used or (self._facts.batching and used + running.open_rows <= self.slots)

    def next_job(self, chunk: int) -> PrefillJob | None:
        """The prompt, or the several short ones, to put into the next chunk of ``chunk`` tokens."""
        ready = [job for job in self._jobs if not self._waits(job)]
        if not ready:
            return None
        job = ready[0] if self._oldest_next else min(ready, key=self._ahead)
        self._oldest_next = not self._oldest_next
        if self._facts.joint_prefill and _fresh(job) and job.remaining <= chunk:
            return self._joined(job, chunk, ready)
        return job

    def _ahead(self, job: PrefillJob) -> int:
        """Tokens until ``job``, or one that waits for it, is through: whose urgency is that of the job it waits for."""
        ahead = job.remaining
        for other in self._jobs:
            if other.behind is not None and other.behind[0] is job:
                common = other.behind[1]
                ahead = min(ahead, common - job.done + min(self._ahead(other), other.total - common))
        return ahead

    def _joined(self, first: PrefillJob, chunk: int, ready: list[PrefillJob]) -> PrefillJob:
        """``first`` together with other prompts not begun, as far as they fit into the chunk."""
        fresh = [job for job in ready if _fresh(job)]
        if len(fresh) == 1:
            return first
        fresh.sort(key=lambda job: (job is not first, abs(job.total - first.total)))
        fresh = fresh[: together([job.running[0] for job in fresh], chunk)]
        if len(fresh) == 1:
            return first
        joint = PrefillJob(self._model, [job.running[0] for job in fresh], True, self._prefixes)
        self._jobs = [joint, *(job for job in self._jobs if job not in fresh)]
        return joint

    def try_again(self, job: PrefillJob) -> bool:
        """After a failure: try several prompts each alone, or one without what the prefix cache had of it.

        False when that is how it was tried.
        """
        if job.cached and self._prefixes is not None:
            self._prefixes.clear()
            job.start_over()
            return True
        self._jobs.remove(job)
        if len(job.running) == 1:
            return False
        alone = [self._job(one) for one in job.running if one.open_rows]
        for single in alone:
            single.alone = True
        self._jobs = alone + self._jobs
        return True

    def take_finished(self) -> list[PrefillJob]:
        """The jobs whose prompts are wholly in the cache; they are the caller's now."""
        finished = [job for job in self._jobs if job.finished]
        if finished:
            self._jobs = [job for job in self._jobs if job not in finished]
        return finished


def _fresh(job: PrefillJob) -> bool:
    """Whether it may be put together with others."""
    return len(job.running) == 1 and not (job.begun or job.alone or job.expected or job.places)
