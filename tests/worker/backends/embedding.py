"""An embedding backend in this process, and the vectors it makes."""

from __future__ import annotations

import queue
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference import ipc
from inference.worker.backends.embeddings import EmbeddingBackend
from tests.worker.backends.threaded import PATIENCE_S, Threaded

TEXTS = ["a cat sits", "stock market", "a kitten rests on a mat while it rains outside", "x", "the sea"]


class Embedding(Threaded[EmbeddingBackend]):
    """``answers`` has what requests were told, in the order in which it came."""

    def __init__(self, path: Path, backend: EmbeddingBackend | None = None, **options: Any) -> None:
        super().__init__(path, backend or EmbeddingBackend(), **options)
        self.answers: queue.SimpleQueue[ipc.Event] = queue.SimpleQueue()

    def embed(self, *inputs: str | list[int], dimensions: int | None = None) -> NDArray[np.float64]:
        """The vectors, one row each."""
        self.backend.embed(next(self._names), list(inputs), dimensions)
        answer = self.answers.get(timeout=PATIENCE_S)
        assert isinstance(answer, ipc.Embedded), answer
        self.prompt_tokens = answer.prompt_tokens
        return np.array(answer.vectors)

    def _hear(self, event: ipc.RequestEvent) -> None:
        self.answers.put(event)
