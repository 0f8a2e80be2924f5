"""What every test has: an ``LMX_HOME`` of its own, never the real one; free ports; the real server with fake models."""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as properties

# Before anything of ours is imported: settings and paths read it.
_HOME = Path(tempfile.mkdtemp(prefix="lmx-test-home-"))
os.environ["LMX_HOME"] = str(_HOME)
for _name in [name for name in os.environ if name.startswith("LMX_") and name != "LMX_HOME"]:
    del os.environ[_name]
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)

from django.conf import settings  # noqa: E402

from lmx_site import access, policy  # noqa: E402
from tests.live.process import LiveServer, fake_model  # noqa: E402
from tests.material.hub import REPO, Hub, HubRepo, nano_files  # noqa: E402

# pytest-django has read the settings before this file is loaded, so their paths are set right here.
settings.HOME = _HOME
for _alias, _file in (("default", "inventory"), ("telemetry", "telemetry"), ("responses", "responses")):
    settings.DATABASES[_alias]["NAME"] = _HOME / f"{_file}.sqlite3"
    settings.DATABASES[_alias]["TEST"]["NAME"] = _HOME / f"test-{_file}.sqlite3"

# A slow machine, or a busy one, is no finding.
properties.register_profile("lmx", deadline=None, suppress_health_check=[HealthCheck.too_slow])
properties.load_profile("lmx")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty LMX_HOME for this test alone."""
    directory = tmp_path / "home"
    directory.mkdir()
    monkeypatch.setenv("LMX_HOME", str(directory))
    return directory


@pytest.fixture
def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(autouse=True)
def _edge_defaults() -> Iterator[None]:
    """No keys, this machine's names plus the host name of Django's test clients; put back after each test."""
    access.set_keys(access.Keys())
    policy.set_policy(policy.Policy(frozenset(policy.own_names() | {"testserver"})))
    yield
    access.set_keys(access.Keys())


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., LiveServer]]:
    """A function that starts servers: each on a home with one fake model, with ``LMX_…`` variables as arguments."""
    started: list[LiveServer] = []

    def start(home: Path | None = None, *, wait: bool = True, **variables: str) -> LiveServer:
        if home is None:
            home = tmp_path / f"home-{len(started)}"
            fake_model(home)
        server = LiveServer(home, variables)
        started.append(server)
        return server.start() if wait else server.launch()

    yield start
    for server in started:
        server.close()


@pytest.fixture
def lmx_server(start_server: Callable[..., LiveServer]) -> Iterator[LiveServer]:
    """The real server with one fake model (``tests.live.process.MODEL``), stopped cleanly at the end."""
    server = start_server()
    yield server
    assert server.stop() == 0, server.stderr


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A Hub with one model, ``tests.material.hub.REPO``, of which servers and jobs started from now on fetch."""
    with Hub({REPO: HubRepo(nano_files())}) as found:
        monkeypatch.setenv("HF_ENDPOINT", found.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "60")  # a file that is held is not asked for again
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield found
