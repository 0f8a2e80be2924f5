"""The pins: exact, without what the server must not bring, the same list everywhere."""

from __future__ import annotations

import importlib.util
import json
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

SETS = ["base", "clients", "engine", "lint", "test"]
UNWANTED = {"torch", "torchvision", "torchaudio", "gradio", "opencv-python", "opencv-python-headless", "triton"}


def requirements(file: Path) -> list[Requirement]:
    lines = (line.partition("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in lines if line]


@pytest.fixture(scope="module")
def tool(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("pins", root / "requirements" / "pins.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", SETS)
def test_each_is_one_exact_version(root: Path, name: str) -> None:
    for pin in requirements(root / "requirements" / f"{name}.txt"):
        assert [clause.operator for clause in pin.specifier] == ["=="], pin
        assert pin.url is None


@pytest.mark.parametrize("name", SETS)
def test_nothing_large_and_unused(root: Path, name: str) -> None:
    assert not UNWANTED & {canonicalize_name(pin.name) for pin in requirements(root / "requirements" / f"{name}.txt")}


@pytest.mark.parametrize("name", SETS)
def test_no_index_and_no_hashes(root: Path, name: str) -> None:
    text = (root / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    assert "://" not in text
    assert "--" not in "".join(line.partition("#")[0] for line in text.splitlines())


def test_the_package_depends_on_what_base_lists(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert [str(Requirement(line)) for line in project["dependencies"]] == [
        str(pin) for pin in requirements(root / "requirements" / "base.in")
    ]


def test_the_engine_is_no_dependency(root: Path) -> None:
    engine = [canonicalize_name(pin.name) for pin in requirements(root / "requirements" / "engine.txt")]
    assert engine == ["vllm-mlx", "mlx-embeddings"]
    assert not set(engine) & {canonicalize_name(pin.name) for pin in requirements(root / "requirements" / "base.txt")}


@pytest.mark.parametrize("name", ["base", "clients", "lint", "test"])
def test_resolved_from_its_list(root: Path, name: str) -> None:
    folder = root / "requirements"
    resolved = {canonicalize_name(pin.name): str(pin.specifier) for pin in requirements(folder / f"{name}.txt")}
    for wanted in requirements(folder / f"{name}.in"):
        assert resolved[canonicalize_name(wanted.name)] == str(wanted.specifier)


@pytest.mark.parametrize("together", [["base", "engine", "lint", "test"], ["base", "clients"]])
def test_sets_agree_where_they_overlap(root: Path, together: list[str]) -> None:
    seen: dict[str, str] = {}
    for name in together:
        for pin in requirements(root / "requirements" / f"{name}.txt"):
            assert seen.setdefault(canonicalize_name(pin.name), str(pin.specifier)) == str(pin.specifier), pin


@pytest.mark.parametrize(("platform", "other"), [("linux", "darwin"), ("darwin", "linux")])
def test_each_platform_gets_its_mlx(tool: ModuleType, platform: str, other: str) -> None:
    backend = {"linux": "mlx-cpu", "darwin": "mlx-metal"}
    names = {pin.partition("==")[0] for pin in tool.pins("base", tool.ENVIRONMENTS[platform], "3.12")}
    assert {"mlx", "mlx-lm", backend[platform]} <= names
    assert backend[other] not in names


def test_markers_are_reduced_to_the_platform(tool: ModuleType) -> None:
    linux, darwin = (tool.PLATFORM_MARKERS[name] for name in ("linux", "darwin"))
    assert tool.simplified(f"a==1 ; ({darwin}) or ({linux})") == "a==1"
    assert tool.simplified(f"a==1 ; {linux}") == "a==1 ; sys_platform == 'linux'"
    assert tool.simplified(f"a==1 ; implementation_name != 'PyPy' and (({darwin}) or ({linux}))") == "a==1"
    assert tool.simplified("a==1") == "a==1"
    older = "python_full_version < '3.15'"
    assert tool.simplified(f"a==1 ; {older} and (({darwin}) or ({linux}))") == f"a==1 ; {older}"


def test_npm_packages_are_exact_versions_from_the_registry(root: Path) -> None:
    project = json.loads((root / "requirements" / "package.json").read_text(encoding="utf-8"))
    assert {"openai", "@anthropic-ai/sdk"} <= set(project["dependencies"])
    assert not [wanted for wanted in project["dependencies"].values() if not re.fullmatch(r"\d+\.\d+\.\d+", wanted)]
    assert not list(root.glob("requirements/*lock*"))


def test_npm_packages_are_all_that_is_installed(root: Path) -> None:
    """Each that one of them brings is listed too, so that its version is not the registry's choice."""
    listed = root / ".venvs" / "node" / "node_modules" / ".package-lock.json"
    if not listed.exists():
        pytest.skip("the npm clients (.venvs/node) are missing: `make test` installs them")
    installed = json.loads(listed.read_text(encoding="utf-8"))["packages"]
    project = json.loads((root / "requirements" / "package.json").read_text(encoding="utf-8"))
    found = {name.removeprefix("node_modules/"): told["version"] for name, told in installed.items()}
    assert found == project["dependencies"]
