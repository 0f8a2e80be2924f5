"""Bringing one worker up with one model, all the way or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from inference import ipc
from inference.catalog import ModelRef
from inference.engine.child import ChildExit
from inference.engine.runs import Bounds
from inference.engine.settings import EngineSettings
from inference.engine.worker_client import WorkerClient
from inference.errors import InsufficientMemory, InternalError, LmxError, ModelUnavailable, WorkerDied

_BACKEND_OF_FORMAT = {"gguf": "llama_cpp"}
_DEFAULT_BACKEND = "vllm_mlx"
_TEXT_BACKENDS = ("vllm_mlx", "vllm_engine")


@dataclass(frozen=True, slots=True)
class LaunchHooks:
    """Called from the loop while the worker lives."""

    on_spawn: Callable[[WorkerClient], None]
    on_exit: Callable[[WorkerClient, ChildExit], None]
    on_progress: Callable[[ipc.LoadProgress], None]
    on_log: Callable[[ipc.Log], None]


class LaunchFailed(Exception):
    """No worker is left behind. ``crashed``: the process died by itself. ``lines`` are its last words."""

    def __init__(self, error: LmxError, lines: list[str], *, crashed: bool) -> None:
        super().__init__(error.message)
        self.error = error
        self.lines = lines
        self.crashed = crashed


def load_command(ref: ModelRef, settings: EngineSettings, bounds: Bounds) -> ipc.Load:
    """What a worker is told to load; its bounds of memory and caches are still to be set."""
    return ipc.Load(
        path=str(ref.path),
        model_id=ref.id,
        context=bounds.context,
        slots=bounds.slots,
        tool_parser=bounds.tool_parser,
        reasoning_parser=bounds.reasoning_parser,
        options={"backend": _backend(ref, settings)},
    )


def _backend(ref: ModelRef, settings: EngineSettings) -> str:
    """The owner's choice, among backends that can: those that generate text have no use for an embedding model."""
    if ref.kind == "embeddings" and settings.worker_backend in (None, *_TEXT_BACKENDS):
        return "embeddings"
    return settings.worker_backend or _BACKEND_OF_FORMAT.get(ref.format, _DEFAULT_BACKEND)


async def launch(command: ipc.Load, settings: EngineSettings, hooks: LaunchHooks) -> tuple[WorkerClient, ipc.Loaded]:
    """Start a worker and load. Raises ``LaunchFailed`` once the process of a failed load is gone.

    A cancelled caller gets ``LaunchFailed`` too, after the same cleaning up: cancelling is how a load is given up.
    """
    client: WorkerClient | None = None
    try:
        async with asyncio.timeout(settings.load_timeout_s):
            client = await WorkerClient.spawn(
                command.model_id,
                on_exit=hooks.on_exit,
                on_progress=hooks.on_progress,
                on_log=hooks.on_log,
                env=settings.worker_env,
                heartbeat_s=settings.heartbeat_s,
                heartbeat_misses=settings.heartbeat_misses,
            )
            hooks.on_spawn(client)
            return client, await client.load(command)
    except (LmxError, OSError, TimeoutError, asyncio.CancelledError) as failure:
        error = _worded(failure, settings)
    lines: list[str] = []
    if client is not None:
        await client.kill()
        lines = list(client.child.recent_lines)
    raise LaunchFailed(error, lines, crashed=isinstance(error, WorkerDied))


def _worded(failure: BaseException, settings: EngineSettings) -> LmxError:
    match failure:
        case WorkerDied() | InsufficientMemory():
            return failure
        case LmxError():
            return ModelUnavailable(failure.message)
        case TimeoutError():
            return ModelUnavailable(f"loading took longer than {settings.load_timeout_s:.0f} s")
        case OSError():
            return InternalError(f"the worker could not be started: {failure.strerror or failure}")
        case _:
            return ModelUnavailable("its loading was given up", retry_after=1)
