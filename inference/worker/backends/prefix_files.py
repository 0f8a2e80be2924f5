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
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from inference.worker.core.core import Core
from inference.worker.core.prefix_cache import PrefixCache
from inference.worker.core.prefix_file import Packed, pack
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
        self._saving = threading.Lock()
        self._reads: queue.SimpleQueue[tuple[str, Tokens] | None] = queue.SimpleQueue()
        self._waiting: dict[str, Submit] = {}
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
        self._used.set()
        self._reads.put(None)
        with self._lock:
            calls, self._calls = self._calls, set()
            self._waiting.clear()
        for call in calls:
            call.set_exception(Closed())
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

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
        gained = length - self._prefixes.match(prompt)
        fits = entry.nbytes <= self._prefixes.limit
        worth = gained >= max(_WORTH_READING, entry.tokens.size / _SHARE_OF_FILE)
        return found if fits and worth else None

    def _read_all(self) -> None:
        while (item := self._reads.get()) is not None:
            request, prompt = item
            with self._lock:
                wanted = request in self._waiting
            if wanted:
                try:
                    self._read(prompt)
                except Exception as error:  # a request never fails for the cache's sake
                    log.warning("a cached prefix on disk was not used: %s", one_line(error))
                self.give_up(request)

    def _read(self, prompt: Tokens) -> None:
        found = self._better(prompt)
        stored = self._store.read(found[0]) if found is not None and self._store is not None else None
        if found is None or stored is None:
            return
        tokens = found[0].tokens

        while not self._call(lambda: stored.convert(_CONVERTED)):
            pass  # streams take their steps in between

        def insert() -> None:
            source = self._prefixes.layout.stored(stored.layers(), int(tokens.size))
            self._prefixes.insert(tokens, source, saved=True)

        self._call(insert)

    # --------------------------------------------------------------------------------------------------- writing

    def save(self, directory: Path | None, seconds: float | None) -> int:
        """Write what is in memory only, last used first, for ``seconds``; returns the bytes written.

        ``directory`` is another than the model's own, whose quota does not count. ``ValueError`` when there is none.
        """
        until = math.inf if seconds is None else time.monotonic() + seconds
        if self._fingerprint is None or (directory is None and self._store is None):
            raise ValueError("there is no directory, or the model's files cannot be read")
        if directory is None:
            return self._save(self._store, until, lambda: False) if self._store is not None else 0
        elsewhere = PrefixStore(directory, 1 << 62, self._fingerprint, log.warning)
        elsewhere.open()
        return self._save(elsewhere, until, lambda: False)

    def _save(self, store: PrefixStore, until: float, stop: Callable[[], bool]) -> int:
        with self._saving, suppress(Closed):
            own, written, now = store is self._store, 0, time.time_ns()
            for number, node in enumerate(self._call(lambda: self._prefixes.tree.unsaved(everything=not own))):
                if time.monotonic() > until or stop():
                    break
                written += self._save_one(store, node, now - number, until)
            return written
        return 0

    def _save_one(self, store: PrefixStore, node: Node, used: int, until: float) -> int:
        tokens, packed = self._call(lambda: self._packed(node))
        cuttable = self._prefixes.layout.cuttable
        stored = store.best(tokens)
        if cuttable and stored is not None and stored[1] >= _NEARLY_ALL * tokens.size:
            return 0
        if not store.write(tokens, packed, cuttable, used, until):
            return 0
        if store is self._store:
            node.saved = True
        return packed.nbytes

    def _packed(self, node: Node) -> tuple[Tokens, Packed]:
        layers = self._prefixes.layout.layers([one.pairs for one in node.path()], node.whole)
        return node.prompt(), pack(layers)

    def _save_when_idle(self) -> None:
        """Write after a while in which nobody asked for anything, so that little is lost if the process dies."""
        while not self._closed.is_set():
            self._used.wait()
            self._used.clear()
            while not self._closed.is_set() and self._used.wait(self._idle_s):
                self._used.clear()
            if not self._closed.is_set() and self._store is not None:
                try:
                    self._save(self._store, math.inf, self._used.is_set)
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
