"""Cached prefixes on disk: what was written comes back, what was damaged does not, and the quota always holds."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
import threading
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import mlx.core as mx
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.models.cache import make_prompt_cache

from inference.worker.core import prefix_file
from inference.worker.core.prefix_file import Layer, Stop, pack
from inference.worker.core.prefix_store import Entry, PrefixStore, Tokens
from tests.worker.core.support import convolution_model, llama_model, prompt, state_space_model, window_model

QUOTA = 1_000_000


def tokens_of(*tokens: int) -> Tokens:
    return np.array(tokens, np.int32)


def layers_of(size: int = 8, value: float = 1.5) -> list[Layer]:
    keys = mx.full((1, 2, size, 4), value, dtype=mx.bfloat16)
    window = mx.arange(size * 6).reshape(1, 2, size, 3)[:, :, 1:]
    return [Layer("KVCache", [keys, keys * 2]), Layer("ArraysCache", (window, None, [1, 2.5, "x", True]), ("meta", 3))]


class Opened:
    """A store with what it logged."""

    def __init__(self, directory: Path, quota: int = QUOTA, mark: str = "f") -> None:
        self.said: list[str] = []
        self.store = PrefixStore(directory, quota, mark, self.said.append)
        self.store.open()

    def entry(self) -> Entry:
        (entry,) = self.store.entries
        return entry


def only_file(directory: Path) -> Path:
    (path,) = directory.iterdir()
    return path


def put_one(directory: Path, cuttable: bool = True) -> Path:
    assert Opened(directory).store.write(tokens_of(1, 2, 3, 4), pack(layers_of()), cuttable)
    return only_file(directory)


# -------------------------------------------------------------------------------------------------------- coming back


def test_an_entry_comes_back_after_a_restart_bit_by_bit(tmp_path: Path) -> None:
    put_one(tmp_path / "new")
    again = Opened(tmp_path / "new")
    stored = again.store.read(again.entry())
    assert stored is not None
    plain, other = stored.layers()
    wanted_plain, wanted_other = layers_of()
    assert (plain.name, other.name, other.meta) == ("KVCache", "ArraysCache", ("meta", 3))
    assert plain.state[0].dtype == mx.bfloat16
    assert isinstance(plain.state, list)
    assert isinstance(other.state, tuple)
    assert mx.array_equal(plain.state[1], wanted_plain.state[1]).item()
    assert mx.array_equal(other.state[0], wanted_other.state[0]).item()
    assert other.state[1:] == (None, [1, 2.5, "x", True])
    assert not again.said


@pytest.mark.parametrize("name", sorted(prefix_file._DTYPES))
def test_every_kind_of_array_comes_back(tmp_path: Path, name: str) -> None:
    arrays = [mx.array([[0, 1], [1, 0]]).astype(prefix_file._DTYPES[name]), mx.zeros((0, 3)), mx.array(7)]
    opened = Opened(tmp_path)
    assert opened.store.write(tokens_of(5), pack([Layer("X", arrays)]), True)
    stored = opened.store.read(opened.entry())
    assert stored is not None
    for found, wanted in zip(stored.layers()[0].state, arrays, strict=True):
        assert found.dtype == wanted.dtype
        assert found.shape == wanted.shape
        assert mx.array_equal(found, wanted).item()


@pytest.mark.parametrize("make", [llama_model, window_model, state_space_model, convolution_model])
def test_a_models_own_caches_go_on_as_if_they_had_not_been_away(tmp_path: Path, make: Callable[[], Any]) -> None:
    model, tokens = make(), prompt(40)
    caches = make_prompt_cache(model)
    model(mx.array([tokens]), cache=caches)
    packed = pack([Layer(type(one).__name__, one.state) for one in caches])
    assert Opened(tmp_path).store.write(np.array(tokens, np.int32), packed, False)
    wanted = model(mx.array([[1, 2, 3]]), cache=caches)
    again = Opened(tmp_path)
    stored = again.store.read(again.entry())
    assert stored is not None
    fresh = make_prompt_cache(model)
    for cache, layer in zip(fresh, stored.layers(), strict=True):
        assert layer.name == type(cache).__name__
        cache.state = layer.state
    assert mx.array_equal(model(mx.array([[1, 2, 3]]), cache=fresh), wanted).item()


def test_nobody_else_may_look(tmp_path: Path) -> None:
    path = put_one(tmp_path / "new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_the_longest_beginning_is_found_and_the_last_token_never(tmp_path: Path) -> None:
    store = Opened(tmp_path).store
    assert store.write(tokens_of(1, 2, 3, 4), pack(layers_of()), True)
    assert store.write(tokens_of(1, 2, 9), pack(layers_of()), True)

    def best(*tokens: int) -> tuple[list[int], int] | None:
        found = store.best(tokens_of(*tokens))
        return (found[0].tokens.tolist(), found[1]) if found else None

    assert best(1, 2, 3, 4, 5) == ([1, 2, 3, 4], 4)
    assert best(1, 2, 3, 4) == ([1, 2, 3, 4], 3)
    assert best(1, 2, 9, 9) == ([1, 2, 9], 3)
    assert best(7, 1, 2) is None
    assert best(1) is None
    assert best() is None


def test_a_snapshot_counts_only_as_a_whole(tmp_path: Path) -> None:
    store = Opened(tmp_path).store
    assert store.write(tokens_of(1, 2, 3), pack(layers_of()), False)
    assert store.best(tokens_of(1, 2, 9, 9)) is None
    assert store.best(tokens_of(1, 2, 3)) is None
    found = store.best(tokens_of(1, 2, 3, 4))
    assert found is not None
    assert found[1] == 3


def test_a_shorter_beginning_is_needless_beside_a_longer_one_that_can_be_cut(tmp_path: Path) -> None:
    store = Opened(tmp_path).store
    assert store.write(tokens_of(1, 2), pack(layers_of()), True)
    assert store.write(tokens_of(1, 2, 3), pack(layers_of()), True)
    assert store.write(tokens_of(1), pack(layers_of()), True)
    assert [one.tokens.tolist() for one in store.entries] == [[1, 2, 3]]
    assert len(list(tmp_path.iterdir())) == 1
    assert store.write(tokens_of(1, 2), pack(layers_of()), False)
    assert store.write(tokens_of(1, 2, 3), pack(layers_of()), False)
    assert len(list(tmp_path.iterdir())) == 3


# ------------------------------------------------------------------------------------------------ opening a directory


def test_leftovers_and_other_models_entries_go_and_everything_else_stays(tmp_path: Path) -> None:
    name = put_one(tmp_path).name
    (tmp_path / f"{'a' * 40}.prefix.partial").write_bytes(b"half")
    (tmp_path / f"{'b' * 40}.prefix").write_bytes(b"rubbish")
    (tmp_path / "notes.txt").write_text("mine")
    os.symlink(tmp_path / "notes.txt", tmp_path / f"{'c' * 40}.prefix")
    os.mkfifo(tmp_path / f"{'d' * 40}.prefix")
    opened = Opened(tmp_path)
    assert opened.entry().name == name
    left = {name, "notes.txt", f"{'c' * 40}.prefix", f"{'d' * 40}.prefix"}
    assert {path.name for path in tmp_path.iterdir()} == left
    other = Opened(tmp_path, mark="another model")
    assert not other.store.entries
    assert {path.name for path in tmp_path.iterdir()} == left - {name}
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_renamed_file_is_no_entry(tmp_path: Path) -> None:
    path = put_one(tmp_path)
    path.rename(tmp_path / f"{'e' * 40}.prefix")
    assert not Opened(tmp_path).store.entries


def test_a_smaller_quota_drops_what_was_used_least_recently(tmp_path: Path) -> None:
    store = Opened(tmp_path).store
    for first in range(4):
        assert store.write(tokens_of(first, 1), pack(layers_of()), True)
        name = next(one.name for one in store.entries if one.tokens[0] == first)
        os.utime(tmp_path / name, ns=(0, (10 - first) * 10**9))
    smaller = Opened(tmp_path, quota=store.nbytes // 2).store
    assert sorted(int(one.tokens[0]) for one in smaller.entries) == [0, 1]


def test_a_quota_of_nothing_reads_only(tmp_path: Path) -> None:
    put_one(tmp_path)
    opened = Opened(tmp_path, quota=0)
    assert opened.store.read(opened.entry()) is not None
    assert not opened.store.write(tokens_of(9), pack(layers_of()), True)


def test_a_directory_that_cannot_be_made_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    opened = Opened(tmp_path / "file" / "below")
    assert not opened.store.write(tokens_of(1), pack(layers_of()), True)
    assert opened.store.best(tokens_of(1, 2)) is None
    assert len(opened.said) == 1


# ----------------------------------------------------------------------------------------------------------- damage


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_damaged_file_is_never_believed_and_goes(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        path = put_one(directory)
        whole = path.read_bytes()
        at = data.draw(st.integers(0, len(whole) - 1))
        damaged = data.draw(
            st.sampled_from(
                [whole[:at], whole + b"x", whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1 :], b""]
            )
        )
        opened = Opened(directory)
        entry = opened.entry()
        path.write_bytes(damaged)
        assert opened.store.read(entry) is None
        assert len(opened.said) == 1
        assert not path.exists()
        assert not opened.store.entries
        assert opened.store.nbytes == 0


def hostile(**changes: Any) -> bytes:
    """A file whose digests are right and whose header lies."""
    packed = pack([Layer("X", [mx.zeros((2, 2))])])
    head, _ = prefix_file.encode("f", tokens_of(1, 2).tobytes(), True, packed, lambda: False)
    header = msgspec.msgpack.decode(head[prefix_file._PRELUDE.size :])
    encoded = msgspec.msgpack.encode(header | changes)
    digest = sha256(encoded).digest()
    body = bytes(prefix_file._bytes_of(packed.arrays[0]))
    prelude: bytes = prefix_file._PRELUDE.pack(prefix_file._MAGIC, len(encoded), len(body), digest)
    return prelude + encoded + body


@pytest.mark.parametrize(
    "changes",
    [
        {"arrays": [["float32", [1 << 40, 1 << 40]]]},
        {"arrays": [["float32", [-2, -2]]]},
        {"arrays": [["float32", [2, 2]], ["float32", [-1]]]},
        {"arrays": [["object", [4]]]},
        {"arrays": 3},
        {"nbytes": 1 << 60},
        {"tokens": b""},
        {"tokens": b"abc"},
        {"format": 99},
        {"layers": [["X", ["a", 5], ["v", None]]]},
        {"layers": [["X", ["a", "0"], ["v", None]]]},
        {"layers": [["X", ["q"], ["v", None]]]},
        {"layers": [["X", [], ["v", None]]]},
        {"layers": [["X", ["v", {"a": 1}], ["v", None]]]},
    ],
    ids=str,
)
def test_a_header_that_lies_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    opened = Opened(tmp_path)
    assert opened.store.write(tokens_of(1, 2), pack([Layer("X", [mx.zeros((2, 2))])]), True)
    entry = opened.entry()
    (tmp_path / entry.name).write_bytes(hostile())
    assert opened.store.read(entry) is not None
    (tmp_path / entry.name).write_bytes(hostile(**changes))
    assert opened.store.read(entry) is None
    assert not list(tmp_path.iterdir())


def test_an_entry_that_somebody_removed_is_missed_quietly(tmp_path: Path) -> None:
    path = put_one(tmp_path)
    opened = Opened(tmp_path)
    entry = opened.entry()
    path.unlink()
    assert opened.store.read(entry) is None
    assert not opened.store.entries
    assert not opened.said


# ------------------------------------------------------------------------------------------------------------ quota


def spied(monkeypatch: pytest.MonkeyPatch, directory: Path, sizes: list[int]) -> None:
    """Record how much is in the directory after every write to a file."""
    original: Callable[[Any, memoryview, Stop], None] = prefix_file._write_all

    def spy(file: Any, part: memoryview, stop: Stop) -> None:
        for at in range(0, max(len(part), 1), 97):
            original(file, part[at : at + 97], stop)
            sizes.append(sum(path.stat().st_size for path in directory.iterdir()))

    monkeypatch.setattr(prefix_file, "_write_all", spy)


@given(
    quota=st.integers(0, 6000),
    steps=st.lists(
        st.tuples(st.integers(0, 3), st.integers(1, 4), st.integers(1, 40), st.booleans(), st.booleans()), max_size=12
    ),
)
@settings(max_examples=40, deadline=None)
def test_there_is_never_more_on_disk_than_the_quota(quota: int, steps: list[tuple[int, int, int, bool, bool]]) -> None:
    sizes = [0]
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        spied(patch, directory, sizes)
        opened = Opened(directory, quota=quota)
        for first, length, size, cuttable, reopens in steps:
            tokens = tokens_of(first, *range(length))
            if opened.store.write(tokens, pack(layers_of(size)), cuttable):
                assert opened.store.covers(tokens, cuttable) is not None
            if reopens:
                opened = Opened(directory, quota=quota)
            assert opened.store.nbytes == sum(path.stat().st_size for path in directory.iterdir())
        assert not opened.said
    assert max(sizes) <= quota


def test_what_was_used_last_stays(tmp_path: Path) -> None:
    first = Opened(tmp_path).store
    assert first.write(tokens_of(0, 1), pack(layers_of()), True)
    store = Opened(tmp_path, quota=first.nbytes * 2 + 10).store
    assert store.write(tokens_of(1, 1), pack(layers_of()), True)
    found = store.best(tokens_of(0, 1, 2))
    assert found is not None
    assert store.read(found[0]) is not None
    assert store.write(tokens_of(2, 1), pack(layers_of()), True)
    assert sorted(int(one.tokens[0]) for one in store.entries) == [0, 2]


@pytest.mark.parametrize("place", ["write_file", "rename", "fsync"])
def test_a_full_disk_costs_the_entry_only_and_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    opened = Opened(tmp_path)
    assert opened.store.write(tokens_of(1, 2), pack(layers_of()), True)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(
            *{"write_file": (prefix_file, "_write_all"), "rename": (os, "rename"), "fsync": (os, "fsync")}[place], full
        )
        assert not opened.store.write(tokens_of(3, 4), pack(layers_of()), True)
        assert not opened.store.write(tokens_of(5, 6), pack(layers_of()), True)
    assert len(opened.said) == 1
    assert "No space left" in opened.said[0]
    assert [path.name for path in tmp_path.iterdir()] == [opened.entry().name]
    assert opened.store.write(tokens_of(3, 4), pack(layers_of()), True)


def test_threads_that_look_and_write_at_once(tmp_path: Path) -> None:
    opened = Opened(tmp_path, quota=4000)
    failures: list[BaseException] = []

    def work(first: int) -> None:
        try:
            for length in range(1, 12):
                opened.store.write(tokens_of(first, *range(length)), pack([Layer("X", [mx.array([first])])]), True)
                found = opened.store.best(tokens_of(first, *range(12)))
                if found is not None:
                    opened.store.read(found[0])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert not opened.said
    assert opened.store.nbytes == sum(path.stat().st_size for path in tmp_path.iterdir()) <= 4000
