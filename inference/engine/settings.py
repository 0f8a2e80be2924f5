"""What the owner's configuration means to the engine. Built from the YAML by ``lmx_site.config``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from inference.ipc import DEFAULT_SLOTS


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Limits and wishes; seconds, percent of RAM, bytes.

    ``timeout_s`` is the longest time without progress (token or prefill chunk) of a running request. ``queue_limit``
    bounds waiting requests per model, ``slots`` running ones. ``memory_cap_bytes`` is a test aid: a smaller total
    than the machine's. ``cancel_grace_s`` is how long a worker may take to end a cancelled request before it counts as
    wedged. ``idle_unload_s`` is the time to live of a model that is loaded without one of its own, None for ever.
    ``prefix_cache_bytes`` bounds each model's prefix cache in memory (0: none; None: a share of what is free),
    ``prefix_disk_bytes`` what all of them keep in ``prefix_dir`` (None: nothing is kept or touched).
    ``worker_backend`` overrides the backend of every worker (``fake`` in tests).
    """

    run_dir: Path
    auto_load: tuple[str, ...] = ()
    max_memory_percent: float = 90.0
    oom_threshold_percent: float = 95.0
    auto_evict_lru: bool = True
    memory_reserve_bytes: int = 256 * 1024 * 1024
    memory_cap_bytes: int | None = None
    timeout_s: float = 300.0
    load_timeout_s: float = 600.0
    queue_timeout_s: float = 300.0
    queue_limit: int = 256
    slots: int = DEFAULT_SLOTS
    drain_s: float = 10.0
    idle_unload_s: float | None = None
    cancel_grace_s: float = 30.0
    prefix_cache_bytes: int | None = None
    prefix_dir: Path | None = None
    prefix_disk_bytes: int = 0
    heartbeat_s: float = 1.0
    heartbeat_misses: int = 15
    max_crashes: int = 3
    crash_window_s: float = 600.0
    worker_backend: str | None = None
    worker_env: dict[str, str] = field(default_factory=dict)
