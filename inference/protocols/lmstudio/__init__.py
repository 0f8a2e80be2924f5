"""LM Studio's own API: its words for models, loads, downloads and statistics."""

from __future__ import annotations

SDK_PATHS = ("lmstudio-greeting", "llm", "embedding", "system", "diagnostics", "files", "repository", "runtime")
"""Where LM Studio's SDKs look for their websockets, below the root; answered with what to use instead."""
