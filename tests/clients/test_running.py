"""What is done where a client is missing, and what a program's report is worth."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.clients.running import Said, needed
from tests.live.process import ROOT


def test_missing_clients_are_skipped_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"Node\.js are missing: `make test` installs them"):
        needed(False, "Node.js")


def test_in_ci_they_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    needed(True, "Node.js")
    with pytest.raises(pytest.fail.Exception, match=r"Node\.js are missing"):
        needed(False, "Node.js")


def test_a_case_that_raised_fails_whoever_asks_for_it() -> None:
    said = Said({"tried": [], "cases": {"well": {"gave": 1}, "ill": {"raised": "Traceback: why"}}})
    assert said["well"] == 1
    with pytest.raises(pytest.fail.Exception, match="Traceback: why"):
        said["ill"]


def test_who_is_looked_for_outside_is_found_out() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.clients.programs", "with_guests"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["tried"] == ["elsewhere.invalid", "192.0.2.1"]
    assert "not on this machine: elsewhere.invalid" in told["cases"]["by_name"]["raised"]
    assert "not on this machine: 192.0.2.1" in told["cases"]["by_number"]["raised"]
    assert told["cases"]["at_home"] == {"gave": "refused"}
