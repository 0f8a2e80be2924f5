"""Cached prefixes on disk when time runs out: nothing half-written, and nothing given up for it."""

from __future__ import annotations

import time
from pathlib import Path

import mlx.core as mx

from inference.worker.core.prefix_file import Layer, pack
from tests.worker.core.test_prefix_store import Opened, tokens_of


def test_nothing_is_dropped_for_what_would_not_be_written_in_time(tmp_path: Path) -> None:
    opened = Opened(tmp_path, quota=1700)
    for first in range(2):
        assert opened.store.write(tokens_of(first, 1), pack([Layer("X", [mx.zeros(100)])]), True)
    large = pack([Layer("X", [mx.zeros(300)])])
    assert not opened.store.write(tokens_of(0, 1, 2), large, True, until=time.monotonic())
    assert not opened.store.write(tokens_of(0, 1, 2), large, True, stop=lambda: True)
    assert len(opened.store.entries) == len(list(tmp_path.iterdir())) == 2
    assert opened.store.write(tokens_of(0, 1, 2), large, True, until=time.monotonic() + 60)
    assert [entry.tokens.size for entry in opened.store.entries] == [3]


def test_a_write_that_is_stopped_half_way_leaves_nothing(tmp_path: Path) -> None:
    opened, asked = Opened(tmp_path, quota=1 << 20), iter([False] * 4 + [True] * 99)
    packed = pack([Layer("X", [mx.zeros(100), mx.zeros(100)])])
    assert not opened.store.write(tokens_of(1, 2), packed, True, stop=lambda: next(asked))
    assert next(asked)
    assert list(tmp_path.iterdir()) == []
