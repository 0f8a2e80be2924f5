"""The real server over real models in real worker processes: what its tests share.

``ENDLESS`` is tiny with room for 65536 tokens: an answer of it ends when somebody ends it, and a prompt of tens of
thousands of tokens keeps it in prefill for as long as a test needs to see that.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai

from tests.live.process import LiveServer, until
from tests.material import place, tiny_model

ENDLESS = "endless"
ROOM = 65536
HI: list[Any] = [{"role": "user", "content": "Say something."}]


def endless_model(home: Path, name: str = ENDLESS) -> Path:
    directory = place(tiny_model(), home / "models" / name)
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").unlink()  # a link to the file that other tests use
    (directory / "config.json").write_text(json.dumps(config | {"max_position_embeddings": ROOM}))
    return directory


@contextmanager
def real_server(home: Path, **variables: str) -> Iterator[LiveServer]:
    """Serves the models below ``home`` with the default backend; ends it as it must end when the test was well."""
    server = LiveServer(home, {"LMX_ENGINE__BACKEND": "vllm_mlx", **variables})
    try:
        yield server.start()
        assert server.stop() == 0, server.stderr
    finally:
        server.close()


def sdk(server: LiveServer, name: str = "bot-1") -> openai.OpenAI:
    """The official client as one bot has it; a context manager."""
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=name, max_retries=0, timeout=120)


def admin(server: LiveServer, path: str) -> Any:
    return httpx.get(f"{server.url}/admin/{path}", timeout=60).json()


def load(server: LiveServer, model: str) -> int:
    """Load it and give its worker's process id."""
    answer = httpx.post(f"{server.url}/admin/model/load", json={"model_id": model}, timeout=120)
    assert answer.status_code == 200, answer.text
    return pid_of(server, model)


def pid_of(server: LiveServer, model: str) -> int:
    return next(int(found["pid"]) for found in admin(server, "models/loaded")["models"] if found["model_id"] == model)


def in_flight(server: LiveServer) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = admin(server, "status")["requests"]
    return found


def idle(server: LiveServer) -> bool:
    """No request anywhere, and no worker that still computes for one."""
    loaded = admin(server, "models/loaded")["models"]
    return not in_flight(server) and not any(model["running"] + model["queued"] for model in loaded)


class Asked(threading.Thread):
    """One streamed chat of the official client on a thread of its own.

    ``text`` and ``reasons`` by choice; ``error`` what the client raised; ``begun`` is set by the first text.
    """

    def __init__(self, server: LiveServer, model: str, messages: list[Any] | None = None, **options: Any) -> None:
        super().__init__(daemon=True)
        self.text: dict[int, str] = {}
        self.reasons: dict[int, str] = {}
        self.error: Exception | None = None
        self.begun = threading.Event()
        self._client = sdk(server)
        self._options = {"model": model, "messages": messages or HI, "temperature": 0, "max_tokens": 40, **options}
        self.start()

    def run(self) -> None:
        try:
            with self._client as client, client.chat.completions.create(**self._options, stream=True) as stream:
                for chunk in stream:
                    for choice in chunk.choices:
                        self.text[choice.index] = self.text.get(choice.index, "") + (choice.delta.content or "")
                        if choice.finish_reason:
                            self.reasons[choice.index] = choice.finish_reason
                    if any(self.text.values()):
                        self.begun.set()
        except (openai.OpenAIError, httpx.HTTPError) as error:
            self.error = error
        finally:
            self.begun.set()

    def streams(self) -> Asked:
        """Wait for its first text."""
        assert self.begun.wait(120)
        assert self.error is None, self.error
        assert self.text
        return self

    def ended(self) -> Asked:
        """Wait for its end."""
        self.join(120)
        assert not self.is_alive()
        return self

    def whole(self) -> str:
        """The text of choice 0 of an answer that ended well."""
        assert self.ended().error is None, self.error
        assert self.reasons
        return self.text[0]


def settled(server: LiveServer, what: str = "the server to have nothing in flight") -> None:
    until(lambda: idle(server), what)
