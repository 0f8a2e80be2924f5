"""What keeps a server from starting is one line and an exit status; what it says when it starts works when pasted."""

from __future__ import annotations

import json
import os
import pty
import shlex
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest

from tests.live.process import MODEL, LiveServer, fake_model, until
from tests.lmx_site.test_config import FOUNDING

pytestmark = pytest.mark.live
Start = Callable[..., LiveServer]


def refusal(server: LiveServer, status: int = 1) -> str:
    """The one line of a server that could not start."""
    assert server.wait() == status, server.stderr
    lines = [line for line in server.stderr.splitlines() if line]
    assert len(lines) == 1, server.stderr
    assert server.stdout == ""
    return lines[0]


class ModelList(BaseHTTPRequestHandler):
    """Answers a list of models at the paths of ``known`` and 404 elsewhere."""

    known: tuple[str, ...] = ()

    def do_GET(self) -> None:
        found = self.path in self.known
        body = json.dumps({"data": []} if found else {"error": "?"}).encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def neighbour() -> Iterator[Callable[..., int]]:
    """Starts a web server that knows the given paths; gives its port."""
    running: list[HTTPServer] = []

    def start(*known: str) -> int:
        server = HTTPServer(("127.0.0.1", 0), type("Handler", (ModelList,), {"known": known}))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        running.append(server)
        return int(server.server_address[1])

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("paths", "who"),
    [
        (("/api/v0/models", "/v1/models"), "LM Studio"),
        (("/v1/models",), "another OpenAI-compatible server"),
        ((), "another program"),
    ],
)
def test_a_taken_port_is_one_line_that_says_who(
    start_server: Start, neighbour: Callable[..., int], paths: tuple[str, ...], who: str
) -> None:
    port = neighbour(*paths)
    line = refusal(start_server(wait=False, LMX_SERVER__PORT=str(port)))
    assert f"port {port} is taken by {who}" in line
    assert f"pid {os.getpid()}" in line
    assert f"make serve PORT={port + 1}" in line


@pytest.mark.parametrize("key", [{}, {"LMX_SECURITY__API_KEY": "k"}])
def test_a_port_taken_by_another_home_s_server(start_server: Start, key: dict[str, str]) -> None:
    first = start_server(**key)
    line = refusal(start_server(wait=False, LMX_SERVER__PORT=str(first.port)))
    assert f"port {first.port} is taken by another Opta-LMX" in line
    assert f"pid {first.pid}" in line
    assert first.stop() == 0


def test_a_port_whose_owner_never_answers_does_not_hang(start_server: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        assert f"port {port} is taken" in refusal(start_server(wait=False, LMX_SERVER__PORT=str(port)))


def test_a_second_instance_names_the_first_and_touches_nothing(start_server: Start) -> None:
    first = start_server()
    inventory = first.home / "inventory.sqlite3"
    before = inventory.stat().st_mtime_ns
    line = refusal(start_server(first.home, wait=False))
    assert f"pid {first.pid}" in line
    assert f"port {first.port}" in line
    assert inventory.stat().st_mtime_ns == before
    assert httpx.get(f"{first.url}/v1/models").status_code == 200
    assert first.stop() == 0


def test_an_unwritable_home_is_one_line(start_server: Start, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    line = refusal(start_server(tmp_path / "file" / "home", wait=False))
    assert "cannot be written" in line
    assert "LMX_HOME" in line


def test_an_unknown_address_is_one_line(start_server: Start) -> None:
    line = refusal(start_server(wait=False, LMX_SERVER__HOST="192.0.2.1", LMX_SECURITY__TRUST_LAN="true"))
    assert "192.0.2.1 is not an address of this machine" in line


def test_a_damaged_database_is_one_line(start_server: Start, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "inventory.sqlite3").write_bytes(b"this is not a database" * 100)
    line = refusal(start_server(home, wait=False))
    assert "inventory.sqlite3 cannot be used as a database" in line


def test_a_wrong_configuration_starts_nothing(start_server: Start, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "config.yaml").write_text("server:\n  prot: 1\n  strict: perhaps\n")
    server = start_server(home, wait=False)
    assert server.wait() != 0
    assert f"{home}/config.yaml:2: server.prot is not a key; did you mean server.port?" in server.stderr
    assert f"{home}/config.yaml:3: server.strict" in server.stderr
    assert sorted(path.name for path in home.iterdir()) == ["config.yaml"]


def test_the_founding_configuration_starts_and_says_what_fell_back(start_server: Start, tmp_path: Path) -> None:
    home = tmp_path / "home"
    fake_model(home)
    (tmp_path / "file").write_text("")
    blocked = str(tmp_path / "file")  # nothing can be made below a file, not even by root
    text = FOUNDING.replace("/var/log/opta-lmx", f"{blocked}/log").replace("/Users/Shared", f"{blocked}/shared")
    (home / "config.yaml").write_text(text)
    server = start_server(home)
    assert "logging.file" in server.stderr
    assert "models.models_directory" in server.stderr
    until(lambda: "serving" in server.log, "the first line of the log")
    assert httpx.get(f"{server.url}/v1/models").json()["data"][0]["id"] == MODEL
    assert server.stop() == 0


def test_the_home_it_makes_is_complete_and_its_key_is_private(start_server: Start, tmp_path: Path) -> None:
    server = start_server(tmp_path / "new" / "home")
    assert {"cache", "inventory.sqlite3", "logs", "models", "run", "secret_key", "telemetry.sqlite3"} <= {
        path.name for path in server.home.iterdir()
    }
    assert (server.home / "secret_key").stat().st_mode & 0o777 == 0o600
    key = (server.home / "secret_key").read_text()
    assert server.stop() == 0
    again = start_server(server.home)
    assert (server.home / "secret_key").read_text() == key
    assert again.stop() == 0


def test_a_model_to_load_at_start_that_is_absent_is_reported_and_the_others_load(start_server: Start) -> None:
    server = start_server(LMX_MODELS__AUTO_LOAD=f"none-such, {MODEL}")
    until(lambda: f"model.loaded {MODEL}" in server.log, "the other model to load")
    assert "auto_load.failed none-such" in server.stderr
    assert server.stop() == 0


def test_on_a_terminal_nothing_pushes_the_announcement_away(home: Path) -> None:
    fake_model(home)
    main, terminal = pty.openpty()
    server = LiveServer(home, {"LMX_LOGGING__LEVEL": "DEBUG"})
    try:
        server.launch(terminal)
        until(lambda: (home / "run" / "server.json").exists(), "the server")
        url = f"{server.url}/v1/chat/completions"
        body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
        assert httpx.post(url, json=body).status_code == 200
        assert httpx.post(url, json={**body, "model": "none"}).status_code == 404
        assert server.stop(signal.SIGINT) == 0
        assert "model.loaded" in server.log
        shown = os.read(main, 65536).decode().splitlines()
        assert shown[0].startswith("Opta-LMX")
        assert shown[-2:] == [f"Log: {home}/logs/server.log", "Stopping"]
    finally:
        server.close()
        os.close(main)
        os.close(terminal)


def test_the_lines_it_prints_work_when_pasted(lmx_server: LiveServer) -> None:
    printed = lmx_server.stdout.splitlines()
    assert lmx_server.url in printed[0]
    assert MODEL in printed[1]
    for start in ("curl ", "python3 "):
        line = next(line for line in printed if line.startswith(start))
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, (line, done.stderr)
        assert "error" not in done.stdout
        assert done.stdout.strip()
        assert shlex.split(line)[0] in ("curl", "python3")
