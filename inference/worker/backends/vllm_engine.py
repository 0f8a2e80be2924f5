"""The second backend: a model that our core cannot run, whole through vllm-mlx's own engine.

``vllm_mlx`` turns to it by itself when the core's probe raises; ``Load.options["backend"]`` can ask for it. It runs
one request at a time, the others wait. Prompts, reasoning, tool calls and stop strings are those of ``vllm_mlx``;
constraints, logprobs, seeds, penalties, biases and several choices are refused by name.
"""

from __future__ import annotations

from inference import ipc
from inference.worker.backends.vllm_mlx import Stepper, VllmMlxBackend
from inference.worker.vllm_compat.loading import LoadedModel


class VllmEngineBackend(VllmMlxBackend):
    """See ``base.Backend``."""

    def _stepper(self, loaded: LoadedModel, command: ipc.Load) -> Stepper:
        return self._whole(loaded, None)


def open_backend() -> VllmEngineBackend:
    """A fresh backend, for the worker process."""
    return VllmEngineBackend()
