"""The server that is fuzzed: the real process with one chat and one embedding model, and a Hub on this machine."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.live.process import LiveServer, fake_model, until
from tests.material import encoder_model, nano_model, place, tiny_model
from tests.material.hub import Hub, HubRepo

CHAT, VECTORS, REPO = "talker", "vectors", "acme/nano-4bit"
REAL = os.environ.get("FUZZ_BACKEND") == "real"
"""``FUZZ_BACKEND=real``: small models that really run, in place of the fake backend."""


@contextmanager
def fuzzed_site(home: Path) -> Iterator[LiveServer]:
    """A server that must have written no error into its log, have nothing in flight and stop cleanly in the end."""
    if REAL:
        place(tiny_model(), home / "models" / CHAT)
        place(encoder_model(), home / "models" / VECTORS)
    else:
        fake_model(home, CHAT, tokens=6, reasoning=2)
        vectors = place(encoder_model(), home / "models" / VECTORS)
        (vectors / "fake.json").write_text(json.dumps({"embedding_dimensions": 8}))
    files = {path.name: path.read_bytes() for path in nano_model().iterdir() if path.is_file()}
    with Hub({REPO: HubRepo(files)}) as hub:
        variables = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home / "hf"), "LMX_MODELS__DEFAULT_MODEL": CHAT}
        if REAL:
            variables["LMX_ENGINE__BACKEND"] = "vllm_mlx"
        server = LiveServer(home, variables)
        try:
            yield server.start()
            until(lambda: not httpx.get(f"{server.url}/admin/status", timeout=30).json()["requests"], "an idle server")
            assert server.stop() == 0, server.stderr
            assert errors(server) == []
        finally:
            server.close()


def errors(server: LiveServer) -> list[str]:
    """What its log has of errors, its workers' included."""
    lines = [json.loads(line) for line in server.log.split("\n") if line]
    return [json.dumps(line, indent=1) for line in lines if line["level"] in ("ERROR", "CRITICAL")]
