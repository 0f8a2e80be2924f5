"""LM Studio's own API: its words for models, loads, downloads and statistics."""

from __future__ import annotations
