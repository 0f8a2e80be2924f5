"""The application over a fake engine, as ``tests/api`` has it."""

from __future__ import annotations

from tests.api.conftest import api, engine

__all__ = ["api", "engine"]
