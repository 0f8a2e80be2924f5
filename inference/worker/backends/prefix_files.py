"""A model's cached prefixes on disk: read when a prompt needs them, written when there is time for it.

Threads: a *reader* reads for one request after the other, and a *saver* writes while nobody asks for anything; ``save``
runs on its caller's thread. All three touch the disk and leave the caches to the stepping thread (``Core.call``).
"""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

from inference.worker.core.core import Core
from inference.worker.core.prefix_cache import PrefixCache
from inference.worker.core.prefix_file import Packed, Stored, pack
from inference.worker.core.prefix_fingerprint import fingerprint
from inference.worker.core.prefix_store import Entry, PrefixStore, Tokens
from inference.worker.core.prefix_tree import Node
from inference.worker.logs import one_line

T = TypeVar("T")

log = logging.getLogger(__name__)

_WORTH_READING = 64
_SHARE_OF_FILE = 4
_NEARLY_ALL = 15 / 16
_CONVERTED = 64 * 1024 * 1024
_IDLE_S = 120.0
_PATIENCE_S = 2.0

Submit = Callable[[], None]


class Closed(Exception):
    """The stepping thread has ended."""


class PrefixFiles:
    """``open`` before anything else, ``close`` when the core is stepped no more."""

    def __init__(self, core: Core, prefixes: PrefixCache, model_dir: Path, *, idle_s: float = _IDLE_S) -> None:
        self._core = core
        self._prefixes = prefixes
        self._fingerprint = _fingerprint(model_dir, prefixes)
        self._store: PrefixStore | None = None
        self._idle_s = idle_s
        self._lock = threading.Lock()
        self._calls: set[Future[None]] = set()
        self._closed = threading.Event()
        self._used = threading.Event()
        self._leaving = threading.Event()
        self._saving = threading.Lock()
        self._submitting = threading.Lock()
        self._reads: queue.SimpleQueue[tuple[str, Tokens] | None] = queue.SimpleQueue()
        self._waiting: dict[str, Submit] = {}
        self._trusted: dict[str, int] = {}
        self._bytes_s = 0.0
        self._threads = [threading.Thread(target=self._read_all, name="prefix-reader", daemon=True)]

    def open(self, directory: Path, quota: int) -> None:
        """Use what is in ``directory``, and begin to read from and write to it."""
        if self._fingerprint is None:
            return
        self._store = PrefixStore(directory, quota, self._fingerprint, log.warning)
        self._store.open()
        self._threads.append(threading.Thread(target=self._save_when_idle, name="prefix-saver", daemon=True))

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Requests that still wait are forgotten; threads that wait for the stepping thread give up."""
        self._closed.set()
        self._leaving.set()
        self._used.set()
        self._reads.put(None)
        with self._lock:
            calls, self._calls = self._calls, set()
            self._waiting.clear()
        for call in calls:
            call.set_exception(Closed())
        for thread in self._threads:
            if thread.is_alive():
                thread.join(_PATIENCE_S)

    @property
    def nbytes(self) -> int:
        return self._store.nbytes if self._store is not None else 0

    # ---------------------------------------------------------------------------------------------------- reading

    def match(self, prompt: Tokens) -> int:
        """How many tokens of a prompt are in memory or worth reading."""
        found = self._better(prompt)
        return found[1] if found is not None else self._prefixes.match(prompt)

    def submit(self, request: str, prompt: Tokens, submit: Submit) -> None:
        """Call ``submit`` once what the disk has of the prompt is in memory; at once if it has nothing to add."""
        self._used.set()
        if self._better(prompt) is None:
            submit()
            return
        with self._lock:
            self._waiting[request] = submit
        self._reads.put((request, prompt))

    def give_up(self, request: str) -> None:
        """Submit it without waiting any longer, so that it can be cancelled."""
        with self._submitting:  # whoever comes to cancel it finds it waiting or submitted
            with self._lock:
                submit = self._waiting.pop(request, None)
            if submit is not None:
                submit()

    def _better(self, prompt: Tokens) -> tuple[Entry, int] | None:
        """An entry that is worth reading: longer than what memory has, and not a large file for a small part of it."""
        if self._store is None or not self._prefixes.enabled:
            return None
        found = self._store.best(prompt)
        if found is None:
            return None
        entry, length = found
        if self._trusted.get(entry.name, self._prefixes.defects) != self._prefixes.defects:
            self._store.remove(entry)  # it was read before, and something was wrong afterwards
            return None
        gained = length - self._prefixes.match(prompt)
        fits = entry.nbytes <= self._prefixes.limit and not self._quicker_computed(entry, gained)
        worth = gained >= max(_WORTH_READING, entry.tokens.size / _SHARE_OF_FILE)
        return found if fits and worth else None

    def _quicker_computed(self, entry: Entry, tokens: int) -> bool:
        """Whether this machine computes so many tokens in less time than it reads the file, by what was measured."""
        computing = self._core.prefill_token_s() * tokens
        return bool(self._bytes_s and computing) and entry.nbytes / self._bytes_s > computing

    def _read_all(self) -> None:
        while (item := self._reads.get()) is not None:
            request, prompt = item
            with self._lock:
                wanted = request in self._waiting
            try:
                if wanted:
                    self._read(prompt)
            except Closed:
                return
            except Exception as error:  # a request never fails for the cache's sake
                log.warning("a cached prefix on disk was not used: %s", one_line(error))
            self.give_up(request)

    def _read(self, prompt: Tokens) -> None:
        """Bring into memory what is worth it; its bytes are held free from before they are read."""
        found = self._better(prompt)
        if found is None or self._store is None:
            return
        entry = found[0]
        began = time.monotonic()
        if not self._call(lambda: self._prefixes.reserve(entry.nbytes)):
            return
        try:
            self._trusted[entry.name] = self._prefixes.defects
            stored = self._store.read(entry)
            if stored is not None:
                while not self._call(lambda: stored.convert(_CONVERTED)):
                    pass  # streams take their steps in between
                self._call(lambda: self._insert(entry, stored))
                self._bytes_s = entry.nbytes / max(time.monotonic() - began, 1e-6)
        finally:
            self._call(lambda: self._prefixes.reserve(0))

    def _insert(self, entry: Entry, stored: Stored) -> None:
        self._prefixes.reserve(0)
        try:
            source = self._prefixes.layout.stored(stored.layers(), int(entry.tokens.size))
        except Exception:
            if self._store is not None:
                self._store.remove(entry)
            raise
        self._prefixes.insert(entry.tokens, source)

    # --------------------------------------------------------------------------------------------------- writing

    def save(self, directory: Path | None, seconds: float | None) -> int:
        """Write what is in memory only, last used first, for ``seconds``; returns the bytes written.

        ``directory`` is another than the model's own, whose quota does not count. ``ValueError`` when there is none.
        """
        if self._fingerprint is None or (directory is None and self._store is None):
            raise ValueError("there is no directory, or the model's files cannot be read")
        until = math.inf if seconds is None else time.monotonic() + seconds
        store = self._store
        if directory is not None:
            store = PrefixStore(directory, 1 << 62, self._fingerprint, log.warning)
            store.open()
        self._leaving.set()  # the saver gives way
        try:
            return self._save(store, until, self._closed.is_set) if store is not None else 0
        finally:
            self._leaving.clear()

    def _save(self, store: PrefixStore, until: float, stop: Callable[[], bool]) -> int:
        patience = -1.0 if until == math.inf else max(0.0, until - time.monotonic())
        if not self._saving.acquire(timeout=patience):
            return 0
        written, now = 0, time.time_ns()
        try:
            for number, node in enumerate(self._call(self._prefixes.tree.ends)):
                if time.monotonic() > until or stop():
                    break
                written += self._save_one(store, node, now - number, until, stop)
        except Closed:
            pass
        finally:
            self._saving.release()
        return written

    def _save_one(self, store: PrefixStore, node: Node, used: int, until: float, stop: Callable[[], bool]) -> int:
        """Bytes written; 0 also where a file has it, or nearly all of it: that one counts as used then."""
        tokens, cuttable = self._call(node.prompt), self._prefixes.layout.cuttable
        present = store.covers(tokens, cuttable)
        if present is None and cuttable:
            best = store.best(tokens)
            present = best[0] if best is not None and best[1] >= _NEARLY_ALL * tokens.size else None
        if present is not None:
            store.touch(present, used)
            return 0
        packed = self._call(lambda: self._packed(node))
        if packed is None or not store.write(tokens, packed, cuttable, used, stop, until):
            return 0
        return packed.nbytes

    def _packed(self, node: Node) -> Packed | None:
        """None if it has given way meanwhile, or turns out not to be numbers."""
        if not self._prefixes.tree.holds(node):
            return None
        return pack(self._prefixes.layout.layers([one.pairs for one in node.path()], node.whole))

    def _save_when_idle(self) -> None:
        """Write after a while in which nothing ran, so that little is lost if the process dies."""
        while not self._closed.is_set():
            self._used.wait()
            self._used.clear()
            while not self._closed.is_set() and (self._used.wait(self._idle_s) or self._core.busy):
                self._used.clear()
            if self._store is not None:
                try:
                    self._save(self._store, math.inf, lambda: self._used.is_set() or self._leaving.is_set())
                except Exception as error:
                    log.warning("the prefix cache could not be written: %s", one_line(error))

    # ----------------------------------------------------------------------------------------- the stepping thread

    def _call(self, job: Callable[[], T]) -> T:
        """What ``job`` returns on the stepping thread; ``Closed`` when that steps no more."""
        done: Future[None] = Future()
        results: list[T] = []

        def run() -> None:
            error: BaseException | None = None
            try:
                results.append(job())
            except Exception as caught:
                error = caught
            with self._lock:
                waiting = done in self._calls
                self._calls.discard(done)
            if waiting:
                done.set_result(None) if error is None else done.set_exception(error)

        with self._lock:
            if self._closed.is_set():
                raise Closed
            self._calls.add(done)
        self._core.call(run)
        done.result()
        return results[0]


def _fingerprint(model_dir: Path, prefixes: PrefixCache) -> str | None:
    try:
        return fingerprint(model_dir, str(prefixes.layout))
    except OSError as error:
        log.warning("no prefix cache on disk, the model's files cannot be read: %s", error.strerror or error)
        return None
