"""Whose turn it is in the real server: priorities of clients, places in the queue, deadlines, a time to live."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from lmx_site.cli import main
from tests.live.process import LiveServer, fake_model, script, until

pytestmark = pytest.mark.live
Start = Callable[..., LiveServer]

CONFIG = """
clients:
  boss: {priority: high, key: a-key-of-the-boss}
  batch: {priority: low}
"""


@pytest.fixture
def narrow(home: Path) -> LiveServer:
    """A server whose model ``one`` answers one request at a time, and which knows clients."""
    (home / "config.yaml").write_text(CONFIG)
    fake_model(home, "one", slots=1)
    server = LiveServer(home)
    return server.start()


class Asker:
    """Sends requests in threads, each as a client of its own."""

    def __init__(self, server: LiveServer, pool: ThreadPoolExecutor) -> None:
        self.url = server.url
        self.answered: list[int] = []
        self._pool = pool

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = httpx.get(f"{self.url}/admin/status").json()
        return answer

    def waiting(self) -> list[str]:
        """The clients that wait, the next first."""
        placed = [r for r in self.status()["requests"] if r["queue_position"]]
        return [r["client"] for r in sorted(placed, key=lambda r: r["queue_position"])]

    def ask(self, bearer: str, prompt: str = "hello", **headers: str) -> Future[httpx.Response]:
        before = len(self.status()["requests"])
        future = self._pool.submit(self._ask, bearer, prompt, headers)
        until(lambda: future.done() or len(self.status()["requests"]) > before, f"the request of {bearer}")
        return future

    def _ask(self, bearer: str, prompt: str, headers: dict[str, str]) -> httpx.Response:
        body = {"model": "one", "messages": [{"role": "user", "content": prompt}]}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        named["Authorization"] = f"Bearer {bearer}"
        answer = httpx.post(f"{self.url}/v1/chat/completions", json=body, headers=named, timeout=60)
        if "X-Timeout" not in named:
            self.answered.append(answer.status_code)
        return answer


def test_the_queue_of_a_busy_model(narrow: LiveServer, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    try:
        with ThreadPoolExecutor(8) as pool:
            asker = Asker(narrow, pool)
            asker.ask("first", script("hold", hold_after=1, gate=str(gate)))
            until(Path(f"{gate}.reached").exists, "the first one to run")
            for bearer in ("batch", "bot", "bot", "other", "a-key-of-the-boss"):
                asker.ask(bearer)
            asker.ask("a-key-of-the-boss", X_Priority="low")
            until(lambda: len(asker.waiting()) == 6, "six to wait")
            assert asker.waiting() == ["boss", "bot", "other", "bot", "batch", "boss"]
            late = asker.ask("hurried", X_Timeout="0.05").result()
            assert (late.status_code, late.json()["error"]["code"]) == (504, "timeout")
            assert late.headers["x-should-retry"] == "false"
            shown = CliRunner().invoke(main, ["status", "--url", narrow.url]).output
            assert "a-key" not in shown
            assert [line.split()[1] for line in shown.splitlines() if "WAITING" not in line][-6:] == list("123456")
            gate.touch()
        assert asker.answered == [200] * 7
        assert narrow.stop() == 0
        assert "a-key-of" not in narrow.log + narrow.stdout + narrow.stderr
    finally:
        narrow.close()


def test_rubbish_and_running_out_of_time_and_a_time_to_live(narrow: LiveServer, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    try:
        with httpx.Client(base_url=narrow.url, timeout=60) as client:
            body: dict[str, Any] = {"model": "one", "messages": [{"role": "user", "content": "hello"}]}
            for header in ({"X-Priority": "urgent"}, {"X-Timeout": "soon"}):
                refused = client.post("/v1/chat/completions", json=body, headers=header)
                assert (refused.status_code, refused.json()["error"]["param"]) == (400, next(iter(header)))
            answer = client.post("/admin/model/load", json={"model_id": "one", "ttl": 1})
            assert answer.json()["ttl"] == 1
            held = script("hold", hold_after=1, gate=str(gate))
            body = {"model": "one", "stream": True, "messages": [{"role": "user", "content": held}]}
            answer = client.post("/v1/chat/completions", json=body, headers={"X-Timeout": "0.5"})
            assert answer.status_code == 200
            assert '"code":"timeout"' in answer.text.replace(" ", "")
            gate.touch()
            until(lambda: not client.get("/admin/models/loaded").json()["models"], "the idle model to go")
        assert narrow.stop() == 0
        assert re.search(r"idle for \d+ s", narrow.log)
    finally:
        narrow.close()
