"""What the documents name is there: files, addresses, events, exit codes, variables, decisions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.urls import URLPattern, get_resolver

from inference.worker import exits

PACKAGES = ("inference", "lmx_site", "models_admin", "monitoring")
FOLDERS = (*PACKAGES, "tests", "docs", "requirements", "templates", "static")
ADR_NAME = re.compile(r"(\d{4})-[a-z0-9-]+\.md")


@pytest.fixture(scope="module")
def documents(root: Path) -> dict[str, str]:
    """Every document's text by its path from the top."""
    files = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    return {str(file.relative_to(root)): file.read_text(encoding="utf-8") for file in files}


@pytest.fixture(scope="module")
def sources(root: Path) -> str:
    """The text of everything that runs."""
    files = [file for package in PACKAGES for file in sorted((root / package).rglob("*.py"))]
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def site_routes() -> Iterator[str]:
    """Addresses beside the API's (tests/api compares those), as far as they are fixed: ``/static/`` of ``static/…``."""
    for entry in get_resolver().url_patterns:
        inner = getattr(entry, "urlconf_module", None)
        if getattr(inner, "__name__", "") == "inference.api.urls":
            continue
        nested = getattr(inner, "urlpatterns", None)
        for pattern in nested or [entry]:
            route = str(pattern.pattern).split("<")[0]
            assert isinstance(pattern, URLPattern) or not nested, f"nested deeper than this test looks: {route}"
            yield "/" + route


def test_files_that_are_named_exist(root: Path, documents: dict[str, str]) -> None:
    wanted = re.compile(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]+)`")
    named = {(name, path) for name, text in documents.items() for path in wanted.findall(text)}
    assert {pair for pair in named if not (root / pair[1]).exists()} == set()


def test_modules_named_without_their_folder_exist(root: Path, documents: dict[str, str]) -> None:
    known = {file.name for package in PACKAGES for file in (root / package).rglob("*.py")} | {"manage.py"}
    named = {(name, file) for name, text in documents.items() for file in re.findall(r"`(\w+\.py)`", text)}
    assert {pair for pair in named if pair[1] not in known} == set()


def test_every_document_is_in_the_index(root: Path, documents: dict[str, str]) -> None:
    index = documents["docs/README.md"]
    listed = {str(Path("docs") / target) for target in re.findall(r"\]\(([^)#\s]+)\)", index)}
    assert {name for name in documents if name.startswith("docs/") and name != "docs/README.md"} <= listed


def test_decisions_are_numbered_and_complete(documents: dict[str, str]) -> None:
    decisions = {Path(name).name: text for name, text in documents.items() if name.startswith("docs/adr/")}
    numbers = [found.group(1) for name in decisions if (found := ADR_NAME.fullmatch(name))]
    assert len(numbers) == len(decisions) == len(set(numbers))
    for name, text in decisions.items():
        assert re.match(rf"# (ADR )?{name[:4]}\b", text), name
        for section in ("Context", "Decision", "Consequences"):
            assert re.search(rf"^#+ {section}", text, re.MULTILINE), f"{name}: {section}"


@pytest.mark.parametrize("route", sorted(set(site_routes())))
def test_every_address_is_named(documents: dict[str, str], route: str) -> None:
    shown = re.findall(r"`(/[^`\s]*)`", documents["docs/architecture.md"])
    assert route in {path.removesuffix("…") for path in shown}


def test_every_event_is_named(documents: dict[str, str], sources: str) -> None:
    emitted = set(re.findall(r"emit\(\s*\"([a-z_]+\.[a-z_]+)\"", sources))
    assert emitted, "the engine says nothing any more, or says it in another way"
    assert {kind for kind in emitted if f"`{kind}`" not in documents["docs/operations.md"]} == set()


def test_the_workers_exit_codes_are_named(documents: dict[str, str]) -> None:
    section = documents["docs/operations.md"].split("\n## Workers\n")[1].split("\n## ")[0]
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)}
    assert told == {value for name, value in vars(exits).items() if name.startswith("EXIT_")}


def test_every_variable_is_named(documents: dict[str, str], sources: str) -> None:
    used = set(re.findall(r"[\"'](LMX_[A-Z]+(?:_[A-Z]+)*)[\"']", sources))
    text = "\n".join(documents.values())
    assert {name for name in used if f"`{name}" not in text} == set()
