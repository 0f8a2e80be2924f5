"""The documents say what there is: every command, every option, every target."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from lmx_site.cli import main
from lmx_site.config import SECTIONS


@pytest.mark.parametrize("name", sorted(main.commands))
def test_every_command_has_a_heading(root: Path, name: str) -> None:
    headings = re.findall(r"^## `lmx (\w+)", (root / "docs" / "cli.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert name in headings


@pytest.mark.parametrize("name", sorted(main.commands))
def test_every_option_is_described(root: Path, name: str) -> None:
    text = (root / "docs" / "cli.md").read_text(encoding="utf-8")
    for option in main.commands[name].params:
        if isinstance(option, click.Option):
            assert f"`{option.opts[0]}" in text, option.opts


@pytest.mark.parametrize("section", sorted(SECTIONS))
def test_every_key_is_described_with_its_default(root: Path, section: str) -> None:
    text = (root / "docs" / "configuration.md").read_text(encoding="utf-8")
    described = text.split(f"## {section}\n")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", described, re.MULTILINE))
    assert list(rows) == list(SECTIONS[section].model_fields)
    for key, field in SECTIONS[section].model_fields.items():
        if field.default is not None:
            assert rows[key] == f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"


def test_links_between_documents_lead_somewhere(root: Path) -> None:
    for document in [root / "README.md", *sorted((root / "docs").rglob("*.md"))]:
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_targets_that_are_named_exist(root: Path) -> None:
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    documents = [root / "README.md", root / "CHANGELOG.md", *sorted((root / "docs").rglob("*.md"))]
    named = {target for path in documents for target in re.findall(r"`make ([a-z-]+)", path.read_text("utf-8"))}
    assert {target for target in named if not re.search(rf"^{target}:", makefile, re.MULTILINE)} == set()
