"""Processes that die under real models: a worker, the web process, everything by a signal with streams open."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import psutil
import pytest

from tests.live.process import LiveServer, until
from tests.live.real import (
    ENDLESS,
    ROOM,
    Asked,
    admin,
    endless_model,
    load,
    pid_of,
    real_server,
    sdk,
    settled,
)
from tests.material import models_dir

pytestmark = [pytest.mark.live, pytest.mark.slow]
STREAMS = 20


@pytest.fixture
def home(tmp_path: Path) -> Path:
    models_dir(tmp_path / "models", "tiny")
    endless_model(tmp_path)
    return tmp_path


def endless(server: LiveServer) -> Asked:
    return Asked(server, ENDLESS, max_tokens=ROOM // 2)


def test_a_worker_that_dies_takes_only_its_streams(home: Path) -> None:
    with real_server(home) as server:
        dead = load(server, ENDLESS)
        alone = Asked(server, "tiny", max_tokens=1500).whole()
        doomed = [endless(server).streams() for _ in range(3)]
        beside = Asked(server, "tiny", max_tokens=1500).streams()
        os.kill(dead, signal.SIGKILL)
        for stream in doomed:
            assert isinstance(stream.ended().error, openai.APIError)
            assert "SIGKILL" in str(stream.error)
        assert beside.whole() == alone
        with sdk(server) as client:  # whoever asks next has it loaded again
            again = client.chat.completions.create(
                model=ENDLESS, messages=[{"role": "user", "content": "x"}], n=2, max_tokens=3
            )
        assert [choice.finish_reason for choice in again.choices] == ["length", "length"]
        assert pid_of(server, ENDLESS) != dead
        settled(server)


def test_a_killed_web_process_leaves_no_child(home: Path) -> None:
    """The workers are in the middle of their steps, and of a prefill; nothing tells them but the end of the socket."""
    with_workers = LiveServer(home, {"LMX_ENGINE__BACKEND": "vllm_mlx"})
    try:
        server = with_workers.start()
        workers = [psutil.Process(load(server, model)) for model in (ENDLESS, "tiny")]
        streams = [endless(server).streams() for _ in range(4)]
        prefill = Asked(server, ENDLESS, [{"role": "user", "content": "word " * 12000}])
        until(lambda: any(one["phase"] == "prefill" for one in admin(server, "status")["requests"]), "a prefill")
        server.process.kill()
        server.wait()
        until(lambda: not any(alive(worker) for worker in workers), "the workers to be gone")
        for stream in [*streams, prefill]:
            assert stream.ended().error is not None
    finally:
        with_workers.close()


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_ends_every_stream_cleanly(home: Path, number: int) -> None:
    server = LiveServer(home, {"LMX_ENGINE__BACKEND": "vllm_mlx", "LMX_ENGINE__DRAIN_SEC": "1"})
    try:
        server.start()
        load(server, ENDLESS)
        streams = [endless(server) for _ in range(STREAMS)]
        for stream in streams:
            stream.streams()
        assert server.stop(number) == 0, server.stderr
        for stream in streams:
            # An error frame and the end of the body, as HTTP says: not a broken connection.
            assert type(stream.ended().error) is openai.APIError, stream.error
            assert "stop" in str(stream.error)
        assert "Traceback" not in server.stderr
        assert "Traceback" not in server.log
    finally:
        server.close()


def test_first_requests_share_one_load(home: Path) -> None:
    with real_server(home) as server, ThreadPoolExecutor(8) as pool:
        body = {"model": "tiny", "messages": [{"role": "user", "content": "x"}], "max_tokens": 3, "temperature": 0}
        url = f"{server.url}/v1/chat/completions"
        answers = [pool.submit(httpx.post, url, json=body, timeout=120) for _ in range(8)]
        texts = {answer.result().json()["choices"][0]["message"]["content"] for answer in answers}
        assert len(texts) == 1
        assert server.log.count("model.loading tiny") == 1
        assert [model["model_id"] for model in admin(server, "models/loaded")["models"]] == ["tiny"]
