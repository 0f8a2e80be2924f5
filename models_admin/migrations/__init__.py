"""Schema of the inventory database."""

from __future__ import annotations
