"""A backend in this process, loaded and run on a thread of its own as in a worker."""

from __future__ import annotations

import itertools
import threading
from abc import ABC, abstractmethod
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from inference import ipc
from inference.worker.backends.base import Backend

PATIENCE_S = 120.0
AnyBackend = TypeVar("AnyBackend", bound=Backend)


class Threaded(ABC, Generic[AnyBackend]):
    """Use as a context manager: entering loads, leaving stops and joins. ``options`` go into the ``Load``."""

    def __init__(self, path: Path, backend: AnyBackend, **options: Any) -> None:
        self.backend = backend
        self.notes: list[ipc.Event] = []
        self._command = ipc.Load(path=str(path), model_id=f"test/{path.name}", **options)
        self._loaded: Future[ipc.Loaded] = Future()
        self._names = (f"r{number}" for number in itertools.count())
        self._thread = threading.Thread(target=self._main, name="main of the worker")

    def __enter__(self) -> Self:
        self._thread.start()
        self._loaded.result(PATIENCE_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.backend.stop()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()

    @property
    def loaded(self) -> ipc.Loaded:
        return self._loaded.result(0)

    @abstractmethod
    def _hear(self, event: ipc.RequestEvent) -> None:
        """An event of a request; all others are ``notes``."""

    def _main(self) -> None:
        try:
            self._loaded.set_result(self.backend.load(self._command, self._emit))
        except BaseException as error:
            self._loaded.set_exception(error)
            return
        self.backend.run()

    def _emit(self, events: list[ipc.Event]) -> None:
        for event in events:
            if isinstance(event, ipc.RequestEvent):
                self._hear(event)
            else:
                self.notes.append(event)
