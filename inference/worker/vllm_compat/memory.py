"""MLX's memory limits, each set only where this build of MLX has it. Sizes in bytes."""

from __future__ import annotations

import mlx.core as mx


def set_limits(memory: int | None, cache: int | None) -> None:
    """``memory`` bounds MLX's arrays and, on Metal, what it wires; ``cache`` what it keeps of freed ones."""
    if memory is not None:
        mx.set_memory_limit(memory)
        _set_wired(memory)
    if cache is not None:
        mx.set_cache_limit(cache)


def _set_wired(memory: int) -> None:
    """Wired memory cannot be paged out; MLX refuses more than the system's recommended working set."""
    if not hasattr(mx, "set_wired_limit") or not mx.metal.is_available():
        return
    recommended = int(mx.device_info().get("max_recommended_working_set_size", memory))
    mx.set_wired_limit(min(memory, recommended))


def active_bytes() -> int:
    return int(mx.get_active_memory())


def cache_bytes() -> int:
    return int(mx.get_cache_memory())


def peak_bytes() -> int:
    return int(mx.get_peak_memory())
