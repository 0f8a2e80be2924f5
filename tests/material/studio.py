"""A home of LM Studio's for tests, in the shapes that its versions 0.3 and 0.4 write."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.material import nano_model, place

SETTINGS: dict[str, Any] = {
    "language": "en",
    "defaultContextLength": {"type": "custom", "value": 8192},
    "chat": {"fontSize": 14},
    "developer": {"jitModelTTL": {"enabled": True, "ttlSeconds": 1800}, "unloadPreviousJITModelOnLoad": True},
}
SERVER: dict[str, Any] = {
    "port": 4321,
    "networkInterface": "0.0.0.0",
    "cors": True,
    "justInTimeModelLoading": True,
    "autoStartOnLaunch": True,
    "logSensitiveData": False,
}


class Studio:
    """``home`` is ``~/.lmstudio`` below ``user``, or what is given."""

    def __init__(self, user: Path, home: Path | None = None) -> None:
        self.home = home or user / ".lmstudio"
        self.home.mkdir(parents=True)

    def model(self, repo: str, folder: Path | None = None) -> Path:
        """A small real model as ``publisher/name`` in its model folder, or in the one given."""
        return place(nano_model(), (folder or self.home / "models") / repo)

    def write(self, name: str, content: Any) -> Path:
        """A JSON file of that name (or text, or bytes) below the home."""
        file = self.home / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            file.write_text(content if isinstance(content, str) else json.dumps(content, indent=2), encoding="utf-8")
        return file

    def settings(self, **changes: Any) -> None:
        self.write("settings.json", {**SETTINGS, **changes})

    def server(self, **changes: Any) -> None:
        self.write(".internal/http-server-config.json", {**SERVER, **changes})

    def index(self, **keys: str) -> None:
        """The index: keys by ``publisher/name``, given as ``publisher__name=key``."""
        self.index_of({repo.replace("__", "/"): key for repo, key in keys.items()})

    def index_of(self, keys: Mapping[str, str]) -> None:
        models = [
            {"domain": "llm", "format": "safetensors", "defaultIdentifier": key, "indexedModelIdentifier": repo}
            for repo, key in keys.items()
        ]
        self.write(".internal/model-index-cache.json", {"models": models, "badModels": [], "errors": []})

    def defaults(self, repo: str, *, load: Mapping[str, Any] = {}, operation: Mapping[str, Any] = {}) -> None:
        """What the owner set for one model: fields of loading and of answering, by key."""
        fields = {
            part: {"fields": [{"key": key, "value": value} for key, value in values.items()]}
            for part, values in (("load", load), ("operation", operation))
        }
        self.write(f".internal/user-concrete-model-default-config/{repo}.json", {"preset": "", **fields})

    def preset(self, name: str, **operation: Any) -> None:
        fields = [{"key": f"llm.prediction.{key}", "value": value} for key, value in operation.items()]
        content = {
            "identifier": f"@local:{name}",
            "name": name,
            "operation": {"fields": fields},
            "load": {"fields": []},
        }
        self.write(f"config-presets/{name}.preset.json", content)


def new_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make ``home`` the user's, empty and without a Hugging Face cache elsewhere."""
    monkeypatch.setenv("HOME", str(home))
    for name in ("HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    home.mkdir()
    return home
