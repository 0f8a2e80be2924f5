"""A small limit on open files, as macOS has, does not keep clients away."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator

import psutil
import pytest

from lmx_site.open_files import WANTED, raise_limit
from tests.live.process import LiveServer

pytestmark = pytest.mark.live


@pytest.fixture
def few_files() -> Iterator[int]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_server_raises_its_limit(few_files: int, start_server: Callable[..., LiveServer]) -> None:
    server = start_server()
    expected = WANTED if few_files == resource.RLIM_INFINITY else min(WANTED, few_files)
    if hasattr(psutil.Process, "rlimit"):  # not on macOS
        assert psutil.Process(server.pid).rlimit(psutil.RLIMIT_NOFILE)[0] == expected
    assert server.stop() == 0


def test_it_is_never_lowered(few_files: int) -> None:
    assert raise_limit(100) == 256
    assert raise_limit(300) == 300
