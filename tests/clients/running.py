"""Programs of other people's clients, each run as a process of its own in the environment made for it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.live.process import ROOT, LiveServer

ENVIRONMENTS = ROOT / ".venvs"
PROGRAMS = Path(__file__).parent / "programs"
KEY = "the-key"
# LiteLLM asks for the newest prices and LangChain reports to LangSmith, unless they are told not to.
OFFLINE = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION", "LANGSMITH_TRACING": "false"}
PATIENCE_S = 600.0


class Said:
    """What a program printed: by a case's name what it gave. One that raised fails the test that asks for it."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.tried: list[str] = told["tried"]
        self._cases: dict[str, dict[str, Any]] = told["cases"]

    def __getitem__(self, case: str) -> Any:
        told = self._cases[case]
        if "raised" in told:
            pytest.fail(f"{case} raised:\n{told['raised']}", pytrace=False)
        return told["gave"]


def needed(there: bool, what: str) -> None:
    """Skip the test where ``what`` is missing, or fail it in CI."""
    if there:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} are missing, and CI must have them", pytrace=False)
    pytest.skip(f"{what} are missing: `make test` installs them")


def python_said(server: LiveServer, program: str, scratch: Path) -> Said:
    """Run the module of ``programs`` in .venvs/clients."""
    home = ENVIRONMENTS / "clients"
    needed((home / ".installed-clients").exists(), "The Python clients (.venvs/clients)")
    return _said([str(home / "bin" / "python"), "-m", "tests.clients.programs", program], server, scratch)


def node_said(server: LiveServer, program: str, scratch: Path) -> Said:
    """Run the file of ``programs`` with Node.js and the packages in .venvs/node."""
    node, packages = _node()
    return _said([node, str(PROGRAMS / program)], server, scratch, NODE_PATH=str(packages))


def node_printed(code: str, server: LiveServer, scratch: Path) -> str:
    """What that module prints, run in ``scratch`` as in a project that has the packages."""
    node, packages = _node()
    (scratch / "node_modules").symlink_to(packages)
    (scratch / "example.mjs").write_text(code, encoding="utf-8")
    return _printed([node, str(scratch / "example.mjs")], server, scratch)


def _node() -> tuple[str, Path]:
    node, home = shutil.which("node"), ENVIRONMENTS / "node"
    needed(node is not None, "Node.js 20 or newer, and its clients,")
    needed((home / ".installed").exists(), "The npm clients (.venvs/node)")
    return str(node), home / "node_modules"


def _said(command: list[str], server: LiveServer, scratch: Path, **variables: str) -> Said:
    return Said(json.loads(_printed(command, server, scratch, **variables).splitlines()[-1]))


def _printed(command: list[str], server: LiveServer, scratch: Path, **variables: str) -> str:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(scratch),
        "SERVER_URL": server.url,
        "SERVER_KEY": KEY,
        "OPENAI_BASE_URL": f"{server.url}/v1",
        "OPENAI_API_KEY": KEY,
        "ANTHROPIC_BASE_URL": server.url,
        "ANTHROPIC_API_KEY": KEY,
        "LM_STUDIO_API_BASE": f"{server.url}/v1",
        "LM_STUDIO_API_KEY": KEY,
        **OFFLINE,
        **variables,
    }
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
