"""A Hub with several models, and the parts of a server that find models there, on directories of the test's own."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from inference.engine.contract import MemoryFit, MemoryReading, Size
from inference.engine.fitting import judge
from inference.engine.policy import Limits, Situation
from models_admin.catalog import DiskCatalog
from models_admin.hub_client import HubClient
from models_admin.hub_finder import HubFinder
from tests.material.hub import Hub, HubRepo, nano_files

GIB = 1024**3
CARD = (
    b"---\nlicense: mit\n---\n# Nano\n\nA card with <script>alert(1)</script> and ![a picture](http://evil.example/x)\n"
)


def described(
    bits: int | None = 4, *, weights: int = 1000, tags: tuple[str, ...] = ("mlx",), **more: Any
) -> dict[str, Any]:
    """What the Hub tells of a model of so many 32-bit words of weights."""
    about: dict[str, Any] = {
        "tags": [*tags, "safetensors", "license:mit", *([f"{bits}-bit"] if bits else [])],
        "library_name": "mlx" if "mlx" in tags else "transformers",
        "downloads": 100,
        "likes": 10,
        "lastModified": "2026-03-01T10:00:00.000Z",
        "pipeline_tag": "text-generation",
        "safetensors": {"parameters": {"U32": weights} if bits else {"BF16": weights}, "total": weights},
        "cardData": {"license": "mit"},
    }
    return about | more


def repo(bits: int | None = 4, *, config: dict[str, Any] | None = None, **about: Any) -> HubRepo:
    """A small model that is quantized to ``bits``; ``config`` is put over its own."""
    files = nano_files() | {"README.md": CARD}
    own = json.loads(files["config.json"]) | ({"quantization_config": {"bits": bits, "group_size": 64}} if bits else {})
    files["config.json"] = json.dumps(own | (config or {})).encode()
    return HubRepo(files, about=described(bits, **about))


def machine(total: int = 96, used: int = 20, gpu: int | None = 72) -> Situation:
    """A machine in GiB, of which 90 % may be used."""
    reading = MemoryReading(total * GIB, (total - used) * GIB, used * GIB, None if gpu is None else gpu * GIB)
    return Situation(reading, Limits(int(total * GIB * 0.9), reading.gpu_limit))


class Finding:
    """``situation`` is what the engine would judge by; the client is the caller's."""

    def __init__(self, client: HubClient, models: Path, **options: Any) -> None:
        models.mkdir(exist_ok=True)
        self.situation = machine()
        self.client = client
        self.catalog = DiskCatalog([models])
        self.finder = HubFinder(client, self.catalog, models, judge=self.judge, **options)

    def judge(self, size: Size, context: int | None = None, model_id: str | None = None) -> MemoryFit:
        return judge(size, self.situation, 0, context=context)


@asynccontextmanager
async def finding(client: HubClient, models: Path, **options: Any) -> AsyncIterator[Finding]:
    found = Finding(client, models, **options)
    try:
        await found.catalog.refresh()
        yield found
    finally:
        found.catalog.close()


def paths(hub: Hub) -> list[str]:
    """What was asked of the Hub, without what is behind its redirects."""
    return [path for _, path, _ in hub.asked if "/cdn/" not in path]
