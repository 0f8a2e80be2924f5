"""The engine singleton of the web process: the one owner of the model workers."""

from __future__ import annotations

from inference.engine.contract import Engine

_engine: Engine | None = None


def get_engine() -> Engine:
    """The engine that runs; ``RuntimeError`` before ``set_engine``."""
    if _engine is None:
        raise RuntimeError("the engine has not been started")
    return _engine


def set_engine(engine: Engine | None) -> None:
    """Called by the runtime when it starts and with None when it stops."""
    global _engine
    _engine = engine
