"""``docs/configuration.md`` and the example file say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from lmx_site.config import SECTIONS, Config, load_config

DOCS = Path(__file__).resolve().parents[2] / "docs"
ROW = re.compile(r"^\| `(\w+)` \| (.+?) \|", re.MULTILINE)


def rows() -> list[tuple[str, str]]:
    """``section.key`` and the default shown, in the order of the document."""
    _, *sections = re.split(r"^## (\w+)$", (DOCS / "configuration.md").read_text(), flags=re.MULTILINE)
    pairs = zip(sections[::2], sections[1::2], strict=True)
    return [(f"{section}.{key}", shown) for section, text in pairs for key, shown in ROW.findall(text)]


def keys() -> list[str]:
    return [f"{section}.{key}" for section, kind in SECTIONS.items() for key in kind.model_fields]


def test_every_key_has_a_row_in_the_order_of_the_code() -> None:
    assert [name for name, _ in rows()] == keys()


@pytest.mark.parametrize(("name", "shown"), rows())
def test_the_default_shown_is_the_default(name: str, shown: str) -> None:
    section, key = name.split(".")
    default = SECTIONS[section].model_fields[key].default
    if default is None:  # described in words, or by what the server puts in its place
        assert shown == "none" or "LMX_HOME" in shown or "LM Studio" in shown
    else:
        assert yaml.safe_load(shown.strip("`")) == default


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
