"""Cached prefixes of a served model: in memory, on disk over a restart, and never in a request's way."""

from __future__ import annotations

import os
import threading
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
from inference.worker.core.core import Core
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


def left_on_disk(directory: Path) -> None:
    """A server before this one was asked ``prompt(300)`` and saved it."""
    with served(directory) as model:
        model.run(body(prompt(300)))
        model.backend.save_cache("", None)


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
    left_on_disk(tmp_path)
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
    left_on_disk(tmp_path)
    with served(tmp_path) as model:
        waiting = model.start(body(prompt(300)))
        assert slow_disk.asked.wait(60)
        model.backend.stop()
        slow_disk.go_on.set()
        assert model.result(waiting).failed is not None


class Watched(VllmMlxBackend):
    """Its saver hardly waits, and its disk tells when a file is written; before that it waits for ``go_on``."""

    def __init__(self) -> None:
        super().__init__()
        self.writing, self.written, self.go_on = threading.Event(), threading.Event(), threading.Event()

    def _prefix_files(self, command: ipc.Load) -> prefix_files.PrefixFiles | None:
        files = super()._prefix_files(command)
        assert files is not None
        assert files._store is not None
        files._idle_s = 0.05
        write = files._store.write

        def told(*arguments: Any) -> bool:
            self.writing.set()
            assert self.go_on.wait(60)
            done = write(*arguments)
            self.written.set()
            return done

        files._store.write = told  # type: ignore[method-assign, assignment]
        return files

    @property
    def files(self) -> prefix_files.PrefixFiles:
        assert self._files is not None
        return self._files


def test_what_was_read_is_on_disk_after_a_while_whatever_becomes_of_the_process(tmp_path: Path) -> None:
    backend = Watched()
    backend.go_on.set()
    with served(tmp_path, backend) as model:
        model.run(body(prompt(300)))
        assert backend.written.wait(60)
        assert [path.suffix for path in tmp_path.iterdir()] == [".prefix"]


def test_while_something_runs_nothing_is_idle(tmp_path: Path) -> None:
    """However long an answer takes: what it brought is written after it."""
    backend = Watched()
    backend.go_on.set()
    with served(tmp_path, backend) as model:
        request = model.start(body(prompt(300), max_tokens=1500, ignore_eos=True))
        model.until(request, ipc.Delta)
        assert not backend.writing.wait(0.3) or not backend.busy()
        model.result(request)
        assert backend.written.wait(60)


def test_a_save_does_not_wait_for_the_saver_longer_than_it_may(tmp_path: Path) -> None:
    backend = Watched()
    with served(tmp_path, backend) as model:
        for seed in range(3):
            model.run(body(prompt(300, seed)))
        assert backend.writing.wait(60)
        assert backend.save_cache("", 0.01) == 0  # the saver is in the middle of a file
        backend.writing.clear()
        backend.go_on.set()
        assert backend.save_cache("", None) > 0  # it has stopped, and left the rest


def test_a_request_that_is_just_being_handed_over_is_cancelled(tmp_path: Path) -> None:
    left_on_disk(tmp_path)
    backend = VllmMlxBackend()
    with served(tmp_path, backend) as model:
        submit, inside, go_on = backend._core.submit, threading.Event(), threading.Event()

        def slow(request: Any) -> None:
            inside.set()
            assert go_on.wait(60)
            submit(request)

        backend._core.submit = slow  # type: ignore[method-assign]
        request = model.start(body(prompt(300), max_tokens=400, ignore_eos=True))
        assert inside.wait(60)
        cancelling = threading.Thread(target=backend.cancel, args=(request,))
        cancelling.start()
        go_on.set()
        cancelling.join()
        assert model.result(request).choices[0].reason == "cancelled"


def test_what_is_quicker_computed_is_not_read(tmp_path: Path) -> None:
    with served(tmp_path) as model:
        for seed in range(2):
            model.run(body(prompt(300, seed)))
        model.backend.save_cache("", None)
    backend = VllmMlxBackend()
    with served(tmp_path, backend) as model:
        assert backend._files is not None
        model.run(body(prompt(200, 7)))  # tells how long a token takes
        assert cached(model.run(body(prompt(300, 0)))) == 299
        assert backend._files._bytes_s > 0
        backend._files._bytes_s = 1.0
        assert cached(model.run(body(prompt(300, 1)))) == 0


def test_what_memory_finds_counts_as_used_on_disk(tmp_path: Path) -> None:
    with served(tmp_path, quota=200_000) as model:
        for seed in range(1, 6):
            model.run(body(prompt(400)))
            model.run(body(prompt(400, seed)))
            model.run(body(prompt(400)))
            model.backend.save_cache("", None)
    with served(tmp_path, quota=200_000) as model:
        assert cached(model.run(body(prompt(400)))) == 399


def test_what_the_disk_lost_is_written_again(tmp_path: Path) -> None:
    with served(tmp_path) as model:
        model.run(body(prompt(300)))
        assert model.backend.save_cache("", None) > 0
        backend = model.backend
        assert isinstance(backend, VllmMlxBackend)
        assert backend._files is not None
        assert backend._files._store is not None
        backend._files._store.remove(backend._files._store.entries[0])
        assert model.backend.save_cache("", None) > 0


def test_a_file_after_which_something_was_wrong_is_not_read_again(tmp_path: Path) -> None:
    left_on_disk(tmp_path)
    backend = VllmMlxBackend()
    with served(tmp_path, backend) as model:
        assert cached(model.run(body(prompt(300)))) == 299
        assert isinstance(backend._core, Core)
        assert backend._core.prefixes is not None
        backend._core.call(backend._core.prefixes.clear)
        model.run(body(prompt(5)))
        assert cached(model.run(body(prompt(300)))) == 0
        assert list(tmp_path.iterdir()) == []


def test_what_is_read_has_its_room_before_it_comes(tmp_path: Path, slow_disk: type[SlowDisk]) -> None:
    left_on_disk(tmp_path)
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    with served(tmp_path) as model:
        model.backend.set_limits(ipc.SetLimits(prefix_cache_bytes=2 * size))
        for seed in range(1, 4):
            model.run(body(prompt(300, seed)))
        request = model.start(body(prompt(300)))
        assert slow_disk.asked.wait(60)
        assert size < model.backend.stats().prefix_bytes <= 2 * size
        slow_disk.go_on.set()
        assert cached(model.result(request)) == 299
        assert model.backend.stats().prefix_bytes <= 2 * size


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
