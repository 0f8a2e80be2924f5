"""Ten thousand models: as records in the database and rows of a catalog, or as directories of hard links."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from inference.catalog import DiskState
from models_admin.catalog import DiskCatalog
from models_admin.facts import Facts, FileFact
from models_admin.row import Row
from models_admin.scan import Found
from tests.material import nano_model

_STATES: tuple[DiskState, ...] = ("verified", "adopted", "corrupt", "offline", "partial")
_WIDTHS = ("3bit", "4bit", "6bit", "8bit")


def many_rows(number: int, root: Path) -> list[Row]:
    """Models of some hundred organisations, of all states but absent, none with files on the disk."""
    return [_row(index, root) for index in range(number)]


def _row(index: int, root: Path) -> Row:
    repo = f"org-{index % 100:02}/model-{index:05}-{_WIDTHS[index % 4]}"
    state = _STATES[0 if index % 10 < 6 else index % 5]
    files = tuple(FileFact(name, 1000 + index, 10**18) for name in ("config.json", "model.safetensors"))
    facts = Facts(
        architecture=("llama", "qwen3", "gemma3")[index % 3],
        quantization=_WIDTHS[index % 4],
        weight_bytes=(index + 1) * 10**6,
        total_bytes=(index + 1) * 10**6 + 5000,
        context_length=4096 << index % 5,
        has_chat_template=True,
        files=files,
        parameters=(index + 1) * 10**6,
        capabilities=("chat", "completion"),
        licence="apache-2.0",
    )
    problem = "it cannot be loaded" if state in ("corrupt", "offline", "partial") else None
    found = Found(root / repo, root, "local", repo, created=1_700_000_000 + index, fingerprint=f"{index:032x}")
    away = 1_700_000_000.0 if state == "offline" else None
    return Row(found, facts, state, problem, vanished_at=away, bad=("config.json",) if state == "corrupt" else ())


class ManyCatalog(DiskCatalog):
    """A catalog that knows these rows without having looked at a disk."""

    def __init__(self, rows: Sequence[Row], root: Path) -> None:
        super().__init__([root])
        self._rows = {row.found.path: row for row in rows}
        self._names = self._named(rows)


def many_directories(number: int, models: Path) -> None:
    """As many small models that a server can scan."""
    files = [file for file in nano_model().iterdir() if file.is_file()]
    for index in range(number):
        directory = models / f"org-{index % 100:02}" / f"model-{index:05}"
        directory.mkdir(parents=True)
        for file in files:
            os.link(file, directory / file.name)
