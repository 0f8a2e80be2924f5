"""The command line against a small HTTP server that answers as ours does, and against none."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from click.testing import CliRunner, Result

from lmx_site import __version__, paths, setup_engine, terminal
from lmx_site.cli import main

GB = 1024**3
LOAD = {"phase": None, "done": 0, "total": 0, "seconds": None}
RUNNING = {
    "model_id": "org/large",
    "state": "ready",
    "reason": None,
    "memory_used_bytes": 3 * GB,
    "running": 2,
    "queued": 1,
    "tokens_per_second": 41.26,
    "load": LOAD,
}
ON_DISK = {**RUNNING, "size_bytes": 2 * GB, "context_length": 32768, "quantization": "4bit"}
BROKEN = {**ON_DISK, "model_id": "cut-off", "state": "failed", "reason": "the weights end early", "quantization": None}


class Answers(BaseHTTPRequestHandler):
    """Canned answers by method and path; ``asked`` keeps what came."""

    answers: ClassVar[dict[str, tuple[int, Any]]] = {}
    asked: ClassVar[list[tuple[str, dict[str, str], Any]]] = []

    def respond(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        sent = json.loads(body) if body else None
        self.asked.append((f"{self.command} {self.path}", dict(self.headers), sent))
        status, answer = self.answers.get(f"{self.command} {self.path}", (404, {"error": {"message": "nothing here"}}))
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = respond  # the names that the base class looks for

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def answers() -> dict[str, tuple[int, Any]]:
    Answers.answers, Answers.asked = {}, []
    return Answers.answers


@pytest.fixture
def url(answers: dict[str, tuple[int, Any]]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def lmx(*words: str, said: str | None = None, **env: str) -> Result:
    return CliRunner().invoke(main, list(words), input=said, env={"LMX_URL": None, "LMX_KEY": None, **env})


def one_line(result: Result) -> str:
    assert result.exit_code != 0
    assert result.stdout == ""
    assert result.stderr.startswith("lmx: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


class TestStatus:
    def test_it_works(self, url: str, answers: dict[str, tuple[int, Any]]) -> None:
        memory = {"used_bytes": 41.2 * GB, "total_bytes": 96 * GB, "free_bytes": 45 * GB}
        state = {"status": "degraded", "reasons": ["a worker died"], "version": "0.1.0", "uptime_s": 11530.2}
        answers["GET /admin/status"] = (200, {**state, "memory": memory, "models": [RUNNING], "requests": [{}]})
        said = lmx("status", "--url", url).stdout
        assert f"degraded: {url}, version 0.1.0, up 3 h 12 min, 1 request in flight" in said
        assert "a worker died" in said
        assert "41.2 GB of 96.0 GB in use, 45.0 GB free for models" in said
        assert "org/large  ready  3.0 GB  2+1              41.3" in said

    def test_nothing_loaded(self, url: str, answers: dict[str, tuple[int, Any]]) -> None:
        state = {"status": "healthy", "reasons": [], "version": "0.1.0", "uptime_s": 1, "memory": {}}
        answers["GET /admin/status"] = (200, {**state, "models": [], "requests": []})
        assert "no model is loaded" in lmx("status", "--url", url).stdout


class TestModels:
    def test_it_works(self, url: str, answers: dict[str, tuple[int, Any]]) -> None:
        answers["GET /admin/models/list"] = (200, {"models": [ON_DISK, BROKEN]})
        said = lmx("models", "--url", url).stdout.splitlines()
        assert said[1].split() == ["org/large", "ready", "2.0", "GB", "32768", "4bit"]
        assert said[-1] == "cut-off: the weights end early"

    def test_none(self, url: str, answers: dict[str, tuple[int, Any]]) -> None:
        answers["GET /admin/models/list"] = (200, {"models": []})
        assert lmx("models", "--url", url).stdout == "no model is on disk here\n"


class TestLoadAndUnload:
    def test_load(self, url: str, answers: dict[str, tuple[int, Any]]) -> None:
        done = {"model_id": "large", "status": "loaded", "memory_used_bytes": 3 * GB}
        answers["POST /admin/model/load"] = (200, done)
        assert lmx("load", "large", "--url", url, "--key", "secret").stdout == "large: loaded, 3.0 GB in use\n"
        path, headers, sent = Answers.asked[0]
        assert path == "POST /admin/model/load"
        assert headers["Authorization"] == "Bearer secret"
        assert sent == {"model_id": "large", "wait": True}

    def test_unload(self, url: str, answers: dict[str, tuple[int, Any]]) -> None:
        done = {"model_id": "large", "status": "unloaded", "memory_freed_bytes": 3 * GB}
        answers["POST /admin/model/unload"] = (200, done)
        assert lmx("unload", "large", "--url", url).stdout == "large: unloaded, 3.0 GB given back\n"

    def test_refused(self, url: str, answers: dict[str, tuple[int, Any]]) -> None:
        answers["POST /admin/model/load"] = (507, {"error": {"message": "needs 80 GB, 12 GB are free"}})
        assert one_line(lmx("load", "large", "--url", url)) == "lmx: needs 80 GB, 12 GB are free\n"

    def test_no_key(self, url: str, answers: dict[str, tuple[int, Any]]) -> None:
        answers["POST /admin/model/load"] = (401, {"error": {"message": "this path takes the admin key"}})
        assert "--key KEY, or LMX_KEY" in one_line(lmx("load", "large", "--url", url))


class TestUsage:
    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["load"], "Missing argument 'NAME'; see 'lmx load --help'"),
            (["serve", "--port", "99999"], "99999 is not in the range 0<=x<=65535; see 'lmx serve --help'"),
            (["nonsense"], "No such command 'nonsense'; see 'lmx --help'"),
            (["--nonsense"], "; see 'lmx --help'"),
        ],
    )
    def test_it_is_one_line(self, words: list[str], said: str) -> None:
        result = CliRunner().invoke(main, words, prog_name="lmx")
        assert result.exit_code == 2
        assert result.stderr.startswith("lmx: ")
        assert result.stderr.rstrip().endswith(said)
        assert result.stderr.count("\n") == 1

    def test_alone_it_shows_the_commands(self) -> None:
        assert "Start the server" in CliRunner().invoke(main, [], prog_name="lmx").output


class TestServer:
    def test_none_runs(self, free_port: int) -> None:
        url = f"http://127.0.0.1:{free_port}"
        assert "start it with 'lmx serve'" in one_line(lmx("status", "--url", url))

    def test_it_is_another_program(self, url: str, answers: dict[str, tuple[int, Any]]) -> None:
        answers["GET /admin/status"] = (200, b"<html>")
        assert "no Opta-LMX server" in one_line(lmx("status", "--url", url))

    def test_an_answer_that_is_no_json_object(self, url: str, answers: dict[str, tuple[int, Any]]) -> None:
        answers["GET /admin/status"] = (502, b"bad gateway")
        assert "/admin/status answered 502" in one_line(lmx("status", "--url", url))

    def test_no_address(self) -> None:
        one_line(lmx("status", "--url", "nonsense"))

    def test_it_is_found_by_what_it_wrote_down(self, home: Path, url: str, answers: dict[str, tuple[int, Any]]) -> None:
        answers["GET /admin/models/list"] = (200, {"models": []})
        file = paths.server_file(home)
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({"pid": 1, "host": "127.0.0.1", "port": 1, "url": url}), encoding="utf-8")
        assert lmx("models").exit_code == 0


class TestChat:
    def frames(self, *frames: Any) -> bytes:
        return b"".join(b": beat\n\ndata: " + json.dumps(f).encode() + b"\n\n" for f in frames) + b"data: [DONE]\n\n"

    def test_it_works(self, url: str, answers: dict[str, tuple[int, Any]]) -> None:
        deltas = [{"choices": [{"delta": {"content": text}}]} for text in ("Pa", "ris")]
        usage = {"choices": [], "usage": {"completion_tokens": 2}}
        answers["POST /v1/chat/completions"] = (200, self.frames(*deltas, usage))
        result = lmx("chat", "--url", url, said="capital?\n\nsure?\n")
        assert result.exit_code == 0
        assert "Paris\n[2 tokens" in result.stdout
        assert [message["content"] for message in Answers.asked[1][2]["messages"]] == ["capital?", "Paris", "sure?"]
        assert Answers.asked[0][2]["model"] == "default"

    def test_an_error_in_the_stream(self, url: str, answers: dict[str, tuple[int, Any]]) -> None:
        answers["POST /v1/chat/completions"] = (200, self.frames({"error": {"message": "the model died"}}))
        result = lmx("chat", "large", "--url", url, said="hello\n")
        assert result.exit_code != 0
        assert "lmx: the model died" in result.stderr


class TestServe:
    def test_a_wrong_configuration(self, tmp_path: Path) -> None:
        file = tmp_path / "config.yaml"
        file.write_text("server:\n  prot: 1\n", encoding="utf-8")
        result = lmx("serve", "--config", str(file))
        assert result.exit_code == 1
        assert "port" in result.stderr

    def test_the_engine_cannot_be_installed(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(paths, "engine_pins", lambda: ["no-such-engine-here==0.0.0"])
        monkeypatch.setattr(
            setup_engine, "_installer", lambda pins: ["sh", "-c", "echo 'ERROR: no network' >&2; exit 1"]
        )
        result = lmx("serve", "--port", "0")
        assert result.exit_code == 1
        assert "Installing no-such-engine-here 0.0.0" in result.stdout
        assert "check the network, then run 'lmx setup' again (ERROR: no network)" in result.stderr


class TestVersion:
    def test_option(self) -> None:
        assert lmx("--version").stdout == f"{__version__}\n"

    def test_command(self) -> None:
        assert lmx("version").stdout.startswith(f"opta-lmx {__version__}\n")


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0 s"), (61, "1 min 1 s"), (3600, "1 h"), (90061, "1 d 1 h"), (0.4, "0 s")]
)
def test_durations(seconds: float, said: str) -> None:
    assert terminal.duration(seconds) == said


@pytest.mark.parametrize(
    ("count", "said"), [(0, "–"), (None, "–"), (50 * 2**20, "50 MB"), (GB / 2, "512 MB"), (1010 * 2**20, "1.0 GB")]
)
def test_sizes(count: float | None, said: str) -> None:
    assert terminal.size(count) == said


def test_loading_says_how_far() -> None:
    assert terminal.state({"state": "loading", "load": {**LOAD, "done": 1, "total": 4}}) == "loading 25 %"
