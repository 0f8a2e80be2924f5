"""``make serve`` with an interpreter that writes down its calls: what is installed when, and what is said."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

TOOLS = ["bash", "cat", "chmod", "cksum", "cp", "dirname", "grep", "head", "id", "make", "mkdir", "rm", "sh", "tail"]
SERVE = "-m lmx_site.cli serve"


@dataclass
class Checkout:
    """A copy of what make needs, in a directory with a space in its name, and a PATH with nothing but ``TOOLS``."""

    folder: Path
    path: Path
    python: Path
    env: dict[str, str] = field(default_factory=dict)

    def make(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run make; ``calls()`` then has what this run called."""
        self.calls_file.unlink(missing_ok=True)
        given = {"PATH": str(self.path), "CALLS": str(self.calls_file), "LC_ALL": "C", **self.env, **env}
        command = [str(self.path / "make"), *words]
        return subprocess.run(command, cwd=self.folder, env=given, capture_output=True, text=True, check=False)

    @property
    def calls_file(self) -> Path:
        return self.path.parent / "calls"

    def calls(self, part: str) -> list[str]:
        lines = self.calls_file.read_text(encoding="utf-8").splitlines() if self.calls_file.exists() else []
        return [line for line in lines if part in line]


@pytest.fixture
def checkout(root: Path, tmp_path: Path) -> Checkout:
    folder, path = tmp_path / "a clone", tmp_path / "bin"
    folder.mkdir()
    path.mkdir()
    shutil.copy(root / "Makefile", folder)
    shutil.copytree(root / "requirements", folder / "requirements", ignore=shutil.ignore_patterns("__pycache__"))
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None, tool
        (path / tool).symlink_to(found)
    python = tmp_path / "python of mine"
    shutil.copy(root / "tests" / "packaging" / "fake_python.sh", python)
    return Checkout(folder, path, python, {"PYTHON": str(python)})


def test_it_works(checkout: Checkout) -> None:
    result = checkout.make("serve")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    pip = checkout.calls("-m pip")
    assert len(pip) == 2
    assert "-r requirements/base.txt" in pip[0]
    assert "--no-deps -r requirements/engine.txt" in pip[1]
    assert checkout.calls(SERVE) == [SERVE]
    assert len(result.stdout.splitlines()) == 3


def test_a_second_start_installs_nothing(checkout: Checkout) -> None:
    checkout.make("serve")
    result = checkout.make("serve")
    assert result.returncode == 0
    assert result.stdout == ""
    assert checkout.calls("-m pip") == []
    assert checkout.calls("-m venv") == []
    assert checkout.calls(SERVE)


def test_changed_pins_are_installed(checkout: Checkout) -> None:
    checkout.make("serve")
    with (checkout.folder / "requirements" / "base.txt").open("a", encoding="utf-8") as pins:
        pins.write("another==1.0\n")
    result = checkout.make("serve")
    assert result.returncode == 0
    assert len(checkout.calls("-m pip")) == 2
    assert checkout.calls("-m venv") == []


def test_a_moved_checkout_is_linked_again(checkout: Checkout) -> None:
    checkout.make("serve")
    checkout.folder = checkout.folder.rename(checkout.folder.parent / "moved")
    checkout.make("serve")
    link = checkout.folder / ".venv" / "lib" / "opta-lmx-checkout.pth"
    assert link.read_text(encoding="utf-8").strip() == str(checkout.folder)


def test_a_failed_install_leaves_no_stamp(checkout: Checkout) -> None:
    result = checkout.make("serve", FAIL_PIP="1")
    assert result.returncode != 0
    assert "installing failed" in result.stderr
    assert "ERROR: Could not find a version" in result.stderr
    assert "WARNING" not in result.stderr
    assert checkout.calls(SERVE) == []
    assert checkout.make("serve").returncode == 0
    assert len(checkout.calls("-m pip")) == 2


def test_options_reach_the_command(checkout: Checkout) -> None:
    checkout.make("serve", "PORT=1235", "HOST=::1", "CONFIG=my file.yaml")
    assert checkout.calls(SERVE) == [f"{SERVE} --port 1235 --host ::1 --config my file.yaml"]


def test_the_name_of_the_machine_is_no_address(checkout: Checkout) -> None:
    checkout.make("serve", HOST="workstation", CONFIG="/etc/other")
    assert checkout.calls(SERVE) == [SERVE]


def test_no_python(checkout: Checkout) -> None:
    del checkout.env["PYTHON"]
    result = checkout.make("serve")
    assert result.returncode != 0
    assert "no Python 3.11 or newer found" in result.stderr
    assert "make serve PYTHON=" in result.stderr


def test_the_newest_python_on_the_path_is_taken(checkout: Checkout) -> None:
    del checkout.env["PYTHON"]
    shutil.copy(checkout.python, checkout.path / "python3.12")
    result = checkout.make("serve")
    assert result.returncode == 0, result.stderr
    assert checkout.calls("-m venv")


def test_an_old_python(checkout: Checkout) -> None:
    result = checkout.make("serve", OLD_PYTHON="1")
    assert result.returncode != 0
    assert "is no Python 3.11 or newer" in result.stderr
    assert not (checkout.folder / ".venv").exists()


def test_an_intel_mac(checkout: Checkout) -> None:
    result = checkout.make("serve", MACHINE="Darwin x86_64")
    assert result.returncode != 0
    assert "Apple silicon" in result.stderr


def test_no_venv_module(checkout: Checkout) -> None:
    result = checkout.make("serve", FAIL_VENV="1")
    assert result.returncode != 0
    assert "install its venv module" in result.stderr


def test_missing_chromium_is_said(checkout: Checkout) -> None:
    command = [str(checkout.path / "bash"), "requirements/environment.sh", "chromium"]
    result = subprocess.run(
        command, cwd=checkout.folder, env={"PATH": str(checkout.path)}, capture_output=True, text=True, check=True
    )
    assert "browser tests will be skipped" in result.stdout


FAKE_NPM = """#!/bin/sh
echo "npm $*" >>"$CALLS"
if [ -n "$FAIL_NPM" ]; then
  echo "npm error code ENOTFOUND"
  exit 1
fi
"""
FAKE_NODE = """#!/bin/sh
if [ "$1" = --version ]; then echo v20.0.0; else exit "${OLD_NODE:-0}"; fi
"""


@pytest.fixture
def with_node(checkout: Checkout) -> Checkout:
    for name, text in (("npm", FAKE_NPM), ("node", FAKE_NODE)):
        (checkout.path / name).write_text(text, encoding="utf-8")
        (checkout.path / name).chmod(0o755)
    return checkout


def test_the_tests_get_their_clients_once(with_node: Checkout) -> None:
    result = with_node.make("test", "ARGS=-k nothing")
    assert result.returncode == 0, result.stderr
    [clients] = with_node.calls("requirements/clients.txt")
    assert "pip install" in clients
    assert with_node.calls("-m venv") == ["-m venv --clear .venv", "-m venv --clear .venvs/clients"]
    [npm] = with_node.calls("npm install")
    assert {"--no-package-lock", "--ignore-scripts"} <= set(npm.split())
    assert with_node.calls("-m pytest") == ["-X dev -W error -m pytest -k nothing"]
    installed = with_node.folder / ".venvs" / "node" / "package.json"
    assert installed.read_text("utf-8") == (with_node.folder / "requirements" / "package.json").read_text("utf-8")

    again = with_node.make("test")
    assert "Installing" not in again.stdout
    assert with_node.calls("-m pip") == with_node.calls("npm install") == []


def test_the_clients_get_the_python_of_the_environment(with_node: Checkout) -> None:
    with_node.make("serve")
    del with_node.env["PYTHON"]
    result = with_node.make("test")
    assert result.returncode == 0, result.stderr
    assert with_node.calls("-m venv") == ["-m venv --clear .venvs/clients"]


def test_other_npm_packages_are_installed(with_node: Checkout) -> None:
    with_node.make("test")
    with (with_node.folder / "requirements" / "package.json").open("a", encoding="utf-8") as file:
        file.write("\n")
    with_node.make("test")
    assert with_node.calls("npm install")
    assert with_node.calls("-m pip") == []


def test_npm_fails(with_node: Checkout) -> None:
    result = with_node.make("test", FAIL_NPM="1")
    assert result.returncode != 0
    assert "npm error code ENOTFOUND" in result.stderr
    assert ".venvs/node/install.log" in result.stderr
    assert with_node.calls("-m pytest") == []
    assert with_node.make("test").returncode == 0
    assert with_node.calls("npm install")


@pytest.mark.parametrize("missing", ["node", "npm", "OLD_NODE"])
def test_missing_node_is_said_and_costs_only_its_tests(with_node: Checkout, missing: str) -> None:
    (with_node.path / missing).unlink(missing_ok=True)
    result = with_node.make("test", **({missing: "1"} if missing == "OLD_NODE" else {}))
    assert result.returncode == 0, result.stderr
    assert "No Node.js 20 or newer with npm here: the tests of npm clients will be skipped" in result.stdout
    assert with_node.calls("npm install") == []
    assert with_node.calls("-m pytest")
