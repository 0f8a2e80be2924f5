"""``lmx migrate lmstudio --undo``: what it puts back, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lmx_site.test_migrate import done, migrate, refused
from tests.material.studio import Studio


@pytest.fixture
def studio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Studio:
    """In a user's home that is not the real one."""
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    for name in ("HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    made = Studio(tmp_path / "user")
    made.server()
    return made


@pytest.fixture
def file(home: Path) -> Path:
    return home / "config.yaml"


def test_undo_leaves_what_was_changed_since(studio: Studio, file: Path) -> None:
    file.write_text("# old\n")
    done()
    file.write_text("security: {api_key: new}\n")
    assert "config.yaml was changed since; the copy is" in refused("--undo")
    assert file.read_text() == "security: {api_key: new}\n"
    done("--undo", "--force")
    assert file.read_text() == "# old\n"
    assert file.with_name("config.yaml.undone").read_text() == "security: {api_key: new}\n"
    assert "belongs to --undo" in migrate("--force").stderr


def test_undo_keeps_what_was_undone_before(studio: Studio, file: Path) -> None:
    undone = file.with_name("config.yaml.undone")
    undone.write_text("mine")
    done()
    done("--undo")
    assert undone.read_text() == "mine"
    assert "port: 4321" in file.with_name("config.yaml.undone-2").read_text()


def test_copies_are_for_their_owner_alone(studio: Studio, file: Path) -> None:
    file.write_text("# old\n")
    file.chmod(0o644)
    done()
    copy = file.with_name("config.yaml.before-lmstudio")
    assert copy.stat().st_mode & 0o777 == 0o600
    copy.chmod(0o644)  # as an older version left it
    file.chmod(0o600)
    done("--undo")
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.with_name("config.yaml.undone").stat().st_mode & 0o777 == 0o600


def test_undo_where_there_was_an_empty_file(studio: Studio, file: Path) -> None:
    file.write_text("")
    done()
    done("--undo")
    assert file.read_text() == ""


def test_undo_where_there_was_no_file(studio: Studio, file: Path) -> None:
    done()
    done("--undo")
    assert not file.exists()
