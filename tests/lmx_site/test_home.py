"""``LMX_HOME``: preparation, fallbacks, the lock, the key."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from lmx_site.config import Config
from lmx_site.config_model import LoggingSection, ModelsSection
from lmx_site.home import DIRECTORIES, HomeLock, StartRefused, known_directories, places, prepare, read_server_file
from lmx_site.secret import NAME, ensure_secret_key, read_secret_key
from models_admin import lmstudio


def models(**keys: object) -> Config:
    return Config(models=ModelsSection.model_validate({"extra_directories": [], **keys}))


def test_it_prepares_what_is_missing_and_keeps_what_is_there(tmp_path: Path) -> None:
    home = tmp_path / "a" / "home"
    prepare(home)
    (home / "models" / "x").mkdir()
    prepare(home)
    assert {entry.name for entry in home.iterdir()} == set(DIRECTORIES)
    assert (home / "models" / "x").is_dir()


def test_a_home_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartRefused, match="cannot be written: a file is where a directory must be"):
        prepare(tmp_path / "file")
    with pytest.raises(StartRefused, match="LMX_HOME"):
        prepare(tmp_path / "file" / "home")


def test_models_go_where_they_should_and_the_home_is_searched_too(home: Path, tmp_path: Path) -> None:
    wanted, extra = tmp_path / "wanted", tmp_path / "extra"
    found = places(models(models_directory=str(wanted), extra_directories=[str(extra), str(wanted)]), home)
    assert found.models == wanted
    assert found.roots == [wanted, home / "models", extra]
    assert found.warnings == []
    assert wanted.is_dir()


def test_an_unwritable_models_directory_is_searched_but_not_written(home: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = places(models(models_directory=str(tmp_path / "file" / "models")), home)
    assert found.models == home / "models"
    assert found.roots == [home / "models", tmp_path / "file" / "models"]
    assert "models.models_directory" in found.warnings[0]


def test_an_unwritable_log_file_falls_back(home: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for blocked in (tmp_path / "file" / "server.log", tmp_path):
        found = places(Config(logging=LoggingSection(file=blocked)), home)
        assert found.log_file == home / "logs" / "server.log"
        assert "logging.file" in found.warnings[0]
    assert places(Config(logging=LoggingSection(file=tmp_path / "new" / "a.log")), home).warnings == []


def test_other_programs_models_are_found_by_default(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert known_directories() == []
    studio, hub = tmp_path / ".lmstudio" / "models", tmp_path / ".cache" / "huggingface" / "hub"
    studio.mkdir(parents=True)
    hub.mkdir(parents=True)
    assert places(Config(), home).roots == [home / "models", studio, hub]
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    assert known_directories() == [studio]
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    (tmp_path / "xdg" / "huggingface" / "hub").mkdir(parents=True)
    assert known_directories() == [studio, tmp_path / "xdg" / "huggingface" / "hub"]


def test_another_programs_files_do_not_stop_the_start(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(studio: Path | None) -> list[Path]:
        raise ArithmeticError("odd")

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(lmstudio, "model_folders", fail)
    assert home / "models" in places(Config(), home).roots
    assert "model folders cannot be told" in caplog.text


def test_the_lock_is_exclusive_and_says_who_holds_it(home: Path) -> None:
    prepare(home)
    first, second = HomeLock(home), HomeLock(home)
    first.acquire()
    with pytest.raises(StartRefused, match="another server already runs"):
        second.acquire()
    first.publish("127.0.0.1", 1234, "http://127.0.0.1:1234")
    with pytest.raises(StartRefused, match=r"pid \d+, port 1234, http://127.0.0.1:1234"):
        second.acquire()
    second.release()  # got nothing, takes nothing away
    assert read_server_file(home) is not None
    first.release()
    assert read_server_file(home) is None
    second.acquire()
    second.release()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}', "\x00"])
def test_a_broken_server_file_is_no_server(home: Path, content: str) -> None:
    prepare(home)
    (home / "run" / "server.json").write_text(content)
    assert read_server_file(home) is None


def test_the_key_is_made_once_and_is_private(home: Path) -> None:
    assert read_secret_key(home) is None
    key = ensure_secret_key(home)
    assert len(key) >= 50
    assert ensure_secret_key(home) == key == read_secret_key(home)
    assert (home / NAME).stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in home.iterdir()] == [NAME]


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00" * 20, b"guess-me", b"a" * 5000], ids=["none", "no", "short", "long"]
)
def test_a_key_that_is_unfit_is_replaced(home: Path, content: bytes) -> None:
    (home / NAME).write_bytes(content)
    assert read_secret_key(home) is None
    key = ensure_secret_key(home)
    assert len(key) >= 50
    assert read_secret_key(home) == key
    assert (home / NAME).stat().st_mode & 0o777 == 0o600


def test_a_home_that_is_made_is_its_owners_alone(tmp_path: Path) -> None:
    prepare(tmp_path / "above" / "home")
    assert (tmp_path / "above" / "home").stat().st_mode & 0o777 == 0o700


def test_a_key_that_was_opened_to_others_is_closed_again(home: Path) -> None:
    key = ensure_secret_key(home)
    (home / NAME).chmod(0o644)
    assert ensure_secret_key(home) == key
    assert (home / NAME).stat().st_mode & 0o777 == 0o600


def test_processes_that_start_together_agree_on_the_key(home: Path) -> None:
    keys: list[str] = []
    threads = [threading.Thread(target=lambda: keys.append(ensure_secret_key(home))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 8
    assert len(set(keys)) == 1
