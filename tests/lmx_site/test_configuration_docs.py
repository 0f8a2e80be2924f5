"""``docs/config.example.yaml`` is valid, complete and shows the defaults (the tables: tests/packaging)."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from lmx_site.config import SECTIONS, Config, load_config

DOCS = Path(__file__).resolve().parents[2] / "docs"


def keys() -> list[str]:
    return [f"{section}.{key}" for section, kind in SECTIONS.items() for key in kind.model_fields]


def test_the_example_is_valid_and_holds_the_defaults() -> None:
    assert load_config(DOCS / "config.example.yaml", {}) == Config()


def test_the_example_names_every_key() -> None:
    text = (DOCS / "config.example.yaml").read_text()
    for name in keys():
        assert re.search(rf"^  (# )?{name.partition('.')[2]}:", text, re.MULTILINE), name


def test_the_example_with_its_comments_taken_away_is_valid_too() -> None:
    text = re.sub(r"^  # (\w+:)", r"  \1", (DOCS / "config.example.yaml").read_text(), flags=re.MULTILINE)
    values = yaml.safe_load(text)
    assert sum(len(section) for section in values.values()) == len(keys())
    Config.model_validate(values)
