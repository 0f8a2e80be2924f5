"""House rules that no linter knows: sizes of files and functions, and no registry named anywhere."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

FILE_LINES, FUNCTION_LINES = 400, 60
# Written in halves: this file is looked at too.
HOSTS = ["pypi" + ".org", "python" + "hosted.org", "npm" + "js.org", "debian" + ".org", "ubuntu" + ".com/ubuntu"]


def tracked(root: Path) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True).stdout
    return [root / name for name in listed.split("\0") if name and (root / name).is_file()]


@pytest.fixture(scope="module")
def modules(root: Path) -> list[Path]:
    return [path for path in tracked(root) if path.suffix == ".py" and "migrations" not in path.parts]


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_no_registry_is_named(root: Path) -> None:
    found = [
        f"{path.relative_to(root)}: {host}"
        for path in tracked(root)
        for host in HOSTS
        if host.encode() in path.read_bytes().lower()
    ]
    assert not found


def test_files_are_short(root: Path, modules: list[Path]) -> None:
    lengths = {str(path.relative_to(root)): path.read_text(encoding="utf-8").count("\n") for path in modules}
    assert not {name: length for name, length in lengths.items() if length > FILE_LINES}


def test_functions_are_short(root: Path, modules: list[Path]) -> None:
    found = [
        f"{path.relative_to(root)}:{node.lineno} {node.name} {length}"
        for path in modules
        for node in functions(path)
        if (length := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES
    ]
    assert not found


def test_modules_say_what_they_are_for(root: Path, modules: list[Path]) -> None:
    silent = [str(path.relative_to(root)) for path in modules if not ast.get_docstring(ast.parse(path.read_bytes()))]
    assert not [name for name in silent if not name.endswith("__init__.py")]
