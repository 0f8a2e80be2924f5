"""An embedding backend in this process, loaded and run on a thread of its own as in a worker."""

from __future__ import annotations

import itertools
import queue
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference import ipc
from inference.worker.backends.embeddings import EmbeddingBackend

PATIENCE_S = 120.0
TEXTS = ["a cat sits", "stock market", "a kitten rests on a mat while it rains outside", "x", "the sea"]


class Embedding:
    """A backend on a thread of its own, as in a worker; leaving the context ends it."""

    def __init__(self, path: Path, backend: EmbeddingBackend | None = None, **options: Any) -> None:
        self.backend = backend or EmbeddingBackend()
        self.notes: list[ipc.Event] = []
        self.answers: queue.SimpleQueue[ipc.Event] = queue.SimpleQueue()
        self._command = ipc.Load(str(path), path.name, **options)
        self._names = itertools.count()
        self._thread = threading.Thread(target=self._main)
        self._loaded: queue.SimpleQueue[ipc.Loaded | BaseException] = queue.SimpleQueue()

    def __enter__(self) -> Embedding:
        self._thread.start()
        loaded = self._loaded.get(timeout=PATIENCE_S)
        if isinstance(loaded, BaseException):
            raise loaded
        self.loaded = loaded
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.backend.stop()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()

    def embed(self, *inputs: str | list[int], dimensions: int | None = None) -> NDArray[np.float64]:
        """The vectors, one row each."""
        self.backend.embed(f"r{next(self._names)}", list(inputs), dimensions)
        answer = self.answers.get(timeout=PATIENCE_S)
        assert isinstance(answer, ipc.Embedded), answer
        self.prompt_tokens = answer.prompt_tokens
        return np.array(answer.vectors)

    def _main(self) -> None:
        try:
            self._loaded.put(self.backend.load(self._command, self._emit))
        except BaseException as error:
            self._loaded.put(error)
            return
        self.backend.run()

    def _emit(self, events: list[ipc.Event]) -> None:
        for event in events:
            (self.answers.put if isinstance(event, ipc.RequestEvent) else self.notes.append)(event)
