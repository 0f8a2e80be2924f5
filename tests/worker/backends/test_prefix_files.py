"""Cached prefixes of a served model: in memory, on disk over a restart, and never in a request's way."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from inference import ipc
from inference.errors import Unsupported
from inference.ipc import GenerateRequest, Sampling
from inference.worker.backends import prefix_files
from inference.worker.backends.vllm_mlx import VllmMlxBackend
from inference.worker.core.prefix_file import pack
from inference.worker.core.prefix_store import Entry, PrefixStore
from tests.material import nano_model
from tests.worker.backends.served import Result, Served

MIB = 1 << 20
EOS = 2


def prompt(length: int, seed: int = 0) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(20, 500, length)]


def body(tokens: list[int], max_tokens: int = 8, **fields: Any) -> GenerateRequest:
    return GenerateRequest(prompt=tokens, max_tokens=max_tokens, sampling=Sampling(temperature=0.0), **fields)


def served(directory: Path | None = None, backend: VllmMlxBackend | None = None, quota: int = 64 * MIB) -> Served:
    return Served(
        nano_model(),
        backend,
        prefix_cache_bytes=64 * MIB,
        prefix_disk_dir=str(directory) if directory is not None else None,
        prefix_disk_bytes=quota if directory is not None else 0,
    )


def cached(result: Result) -> int:
    usage = result.choices[0].usage
    assert usage is not None
    return usage.cached_tokens


def test_usage_estimate_and_statistics_tell_what_was_found() -> None:
    with served() as model:
        assert model.loaded.capabilities.prefix_cache
        first, second = model.run(body(prompt(100))), model.run(body(prompt(100)))
        assert (cached(first), cached(second)) == (0, 99)
        assert (first.prepared.cached_estimate, second.prepared.cached_estimate) == (0, 99)
        assert first.content == second.content
        stats = model.backend.stats()
        assert (stats.prefix_tokens_asked, stats.prefix_tokens_found, stats.prefix_entries) == (200, 99, 1)
        assert stats.prefix_bytes == 99 * model.loaded.kv_bytes_per_token
        assert (stats.prefix_disk_bytes, stats.kv_bytes) == (0, 0)


def test_a_smaller_bound_gives_memory_back_at_once() -> None:
    with served() as model:
        for seed in range(4):
            model.run(body(prompt(200, seed)))
        held = model.backend.stats().prefix_bytes
        model.backend.set_limits(ipc.SetLimits(prefix_cache_bytes=held // 2))
        model.run(body(prompt(5)))  # comes after it in the inbox
        assert 0 < model.backend.stats().prefix_bytes <= held // 2
        model.backend.set_limits(ipc.SetLimits(prefix_cache_bytes=0))
        assert cached(model.run(body(prompt(200)))) == 0
        assert model.backend.stats().prefix_bytes == 0


def test_without_a_bound_in_the_command_it_is_a_share_of_the_limit() -> None:
    with Served(nano_model(), memory_limit_bytes=1 << 40) as model:
        model.run(body(prompt(100)))
        assert cached(model.run(body(prompt(100)))) == 99
    with Served(nano_model()) as model:
        model.run(body(prompt(100)))
        assert cached(model.run(body(prompt(100)))) == 0
    mx.set_memory_limit(1 << 40)


def test_after_a_restart_a_prompt_is_read_from_disk(tmp_path: Path) -> None:
    directory = tmp_path / "own"
    with served(directory) as model:
        wanted = model.run(body(prompt(300)))
        assert model.backend.save_cache("", None) > 0
        assert model.backend.save_cache("", None) == 0
        written = model.backend.stats().prefix_disk_bytes
        assert written == sum(path.stat().st_size for path in directory.iterdir())
    with served(directory) as model:
        assert model.backend.stats().prefix_disk_bytes == written
        again = model.run(body(prompt(300)))
        assert (cached(again), again.prepared.cached_estimate) == (299, 299)
        assert again.content == wanted.content
        assert model.backend.save_cache("", None) == 0
        longer = model.run(body([*prompt(300), *prompt(40, 1)]))
        assert cached(longer) == 299
        assert model.backend.save_cache("", None) > 0
        assert len(list(directory.iterdir())) == 1  # the longer one holds the shorter one too


def test_saving_elsewhere_says_nothing_of_the_own_directory(tmp_path: Path) -> None:
    with served(tmp_path / "own") as model:
        model.run(body(prompt(300)))
        assert model.backend.save_cache(str(tmp_path / "else"), None) > 0
        assert model.backend.save_cache("", None) > 0
        assert [len(list((tmp_path / name).iterdir())) for name in ("own", "else")] == [1, 1]
    with served() as model, pytest.raises(Unsupported, match="no directory"):
        model.backend.save_cache("", None)


def test_what_agents_share_is_written_once(tmp_path: Path) -> None:
    with served(tmp_path) as model:
        for agent in range(4):
            model.run(body([*prompt(900), *prompt(40, agent + 1)]))
        model.backend.save_cache("", None)
    assert len(list(tmp_path.iterdir())) == 1
    with served(tmp_path) as model:
        for agent in range(4):
            assert cached(model.run(body([*prompt(900), *prompt(40, agent + 1)]))) >= 900


def test_no_more_is_written_than_the_quota_and_the_time_allow(tmp_path: Path) -> None:
    with served(tmp_path, quota=200_000) as model:
        for seed in range(5):
            model.run(body(prompt(400, seed)))
        assert model.backend.save_cache("", 0.0) == 0
        assert list(tmp_path.iterdir()) == []
        assert model.backend.save_cache("", None) > 0
        assert 0 < sum(path.stat().st_size for path in tmp_path.iterdir()) <= 200_000
    with served(tmp_path, quota=200_000) as model:
        assert cached(model.run(body(prompt(400, 4)))) == 399  # the last used is what was kept


@pytest.mark.parametrize("damage", ["content", "cut off", "rubbish"])
def test_a_damaged_file_costs_nothing_but_itself(tmp_path: Path, damage: str) -> None:
    with served(tmp_path) as model:
        wanted = model.run(body(prompt(300))).content
        model.backend.save_cache("", None)
    (path,) = tmp_path.iterdir()
    with served(tmp_path) as model:
        whole = path.read_bytes()
        spoiled = {"content": whole[:-9] + b"rubbish!!", "cut off": whole[:-99], "rubbish": b"rubbish"}[damage]
        path.write_bytes(spoiled)
        again = model.run(body(prompt(300)))
        assert (cached(again), again.content) == (0, wanted)
        assert not path.exists()


def test_a_file_of_other_layers_is_not_believed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with served(tmp_path) as model:
        backend = model.backend
        assert isinstance(backend, VllmMlxBackend)
        assert backend._files is not None
        assert backend._files._store is not None
        backend._files._store.write(np.array(prompt(300), np.int32), pack([]), True)
        assert cached(model.run(body(prompt(300)))) == 0
    assert "of another kind" in caplog.text


class SlowDisk(PrefixStore):
    """Reads when it is told to."""

    asked = threading.Event()
    go_on = threading.Event()

    def read(self, entry: Entry) -> Any:
        self.asked.set()
        assert self.go_on.wait(60)
        return super().read(entry)


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> type[SlowDisk]:
    monkeypatch.setattr(prefix_files, "PrefixStore", SlowDisk)
    monkeypatch.setattr(SlowDisk, "asked", threading.Event())
    monkeypatch.setattr(SlowDisk, "go_on", threading.Event())
    return SlowDisk


def test_while_the_disk_reads_others_are_served_and_the_request_can_be_cancelled(
    tmp_path: Path, slow_disk: type[SlowDisk]
) -> None:
    with served(tmp_path) as model:
        model.run(body(prompt(300)))
        model.backend.save_cache("", None)
    with served(tmp_path) as model:
        waiting, other = model.start(body(prompt(300))), model.start(body(prompt(300)))
        assert slow_disk.asked.wait(60)
        assert model.run(body(prompt(20))).choices[0].reason == "length"
        model.backend.cancel(waiting)
        assert model.result(waiting).choices[0].reason == "cancelled"
        assert model.backend.busy()
        slow_disk.go_on.set()
        assert cached(model.result(other)) == 299
        assert not model.backend.busy()


def test_a_model_that_is_stopped_while_the_disk_reads_ends_its_requests(
    tmp_path: Path, slow_disk: type[SlowDisk]
) -> None:
    with served(tmp_path) as model:
        model.run(body(prompt(300)))
        model.backend.save_cache("", None)
    with served(tmp_path) as model:
        waiting = model.start(body(prompt(300)))
        assert slow_disk.asked.wait(60)
        model.backend.stop()
        slow_disk.go_on.set()
        assert model.result(waiting).failed is not None


class Watched(VllmMlxBackend):
    """Saves as soon as nobody asks for anything, and tells when a file is there."""

    def __init__(self, saved: Callable[[], None]) -> None:
        super().__init__()
        self._saved = saved

    def _prefix_files(self, command: ipc.Load) -> prefix_files.PrefixFiles | None:
        files = super()._prefix_files(command)
        assert files is not None
        files._idle_s = 0.05
        store = files._store
        assert store is not None
        write = store.write

        def told(*arguments: Any) -> bool:
            done = write(*arguments)
            self._saved()
            return done

        store.write = told  # type: ignore[method-assign, assignment]
        return files


def test_what_was_read_is_on_disk_after_a_while_whatever_becomes_of_the_process(tmp_path: Path) -> None:
    saved = threading.Event()
    with served(tmp_path, Watched(saved.set)) as model:
        model.run(body(prompt(300)))
        assert saved.wait(60)
        assert [path.suffix for path in tmp_path.iterdir()] == [".prefix"]


def test_a_model_whose_files_cannot_be_read_again_is_served_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def gone(*_: object) -> str:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(prefix_files, "fingerprint", gone)
    with served(tmp_path / "own") as model:
        model.run(body(prompt(100)))
        assert cached(model.run(body(prompt(100)))) == 99
        with pytest.raises(Unsupported):
            model.backend.save_cache("", None)
    assert "the model's files cannot be read" in caplog.text
    assert not os.path.exists(tmp_path / "own")
