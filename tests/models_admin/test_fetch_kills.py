"""A download of eight files whose server is killed at twenty random moments: it completes, and nothing comes twice.

``FETCH_SEED`` names the moments; a failure says which it was.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pytest
from safetensors.numpy import save

from tests.live.process import ROOT, until
from tests.material import nano_model
from tests.material.hub import COMMIT, Hub, HubRepo

REPO = "acme/eight-4bit"
KILLS, ASKING = 20, 3
SEED = int(os.environ.get("FETCH_SEED") or random.randrange(2**32))


def eight_files(dice: random.Random) -> dict[str, bytes]:
    """Two small files and six of weights, up to 400 KB each."""
    files = {name: (nano_model() / name).read_bytes() for name in ("config.json", "tokenizer.json")}
    for number in range(1, 7):
        weights = np.frombuffer(dice.randbytes(dice.randrange(1_000, 400_000)), dtype=np.uint8)
        files[f"model-{number:05}-of-00006.safetensors"] = save({f"w{number}": weights})
    return files


def moments(dice: random.Random, files: dict[str, bytes]) -> list[tuple[str, int]]:
    """After how many bytes of which file, in the order in which they come; of none: while the Hub is asked for them."""
    places = [(name, at) for name in files for at in range(0, len(files[name]), 777)]
    chosen = sorted(dice.sample(range(len(places)), KILLS - ASKING))
    found = [places[index] for index in chosen]
    for _ in range(ASKING):
        found.insert(dice.randrange(len(found)), ("", 0))
    return found


class Servers:
    """One server after the other on a home."""

    def __init__(self, home: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.models_admin.fetch_server", str(home), REPO],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def tell(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")

    def heard(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def kill(self) -> None:
        self.tell("kill")
        assert self.heard() == "killed"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=60)


def on_disk(place: Path, name: str) -> int:
    """Bytes of a file that are there."""
    found = [path for path in (place / name, place / f"{name}.part") if path.exists()]
    return found[0].stat().st_size if found else 0


def has(place: Path, name: str, size: int) -> bool:
    return on_disk(place, name) == size


def hub_waits(hub: Hub, name: str) -> bool:
    return name in hub.waiting


def gone(hub: Hub, name: str) -> bool:
    return name not in hub.waiting


@pytest.mark.live
def test_twenty_kills(tmp_path: Path, hub: Hub) -> None:
    """Some come when all that was sent is written, some while it is on its way: that comes again, and no more."""
    sys.stdout.write(f"FETCH_SEED={SEED}\n")
    dice = random.Random(SEED)
    files = eight_files(dice)
    hub.repos[REPO] = HubRepo(files)
    place, lost = tmp_path / "models" / REPO / f".{COMMIT}.partial", dict.fromkeys(files, 0)
    (tmp_path / "models").mkdir()
    with Servers(tmp_path) as servers:
        for name, at in moments(dice, files):
            hub.hold(name, at)
            servers.tell("start")
            until(partial(hub_waits, hub, name), f"{at} bytes of {name}, seed {SEED}")
            if name and dice.random() < 0.5:
                until(partial(has, place, name, at), f"them on the disk, seed {SEED}")
            servers.kill()
            until(partial(gone, hub, name), f"the end of its program, seed {SEED}")
            if name:
                lost[name] += at - on_disk(place, name)
            hub.release()
        servers.tell("start")
        servers.tell("end")
        assert servers.heard() == "done", f"seed {SEED}"
    model = tmp_path / "models" / REPO / COMMIT
    assert {name: (model / name).read_bytes() for name in files} == files
    again = {name: hub.sent[name] - len(content) for name, content in files.items()}
    assert again == lost, f"what was on the disk came again, seed {SEED}"
