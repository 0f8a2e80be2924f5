"""``LMX_HOME`` made ready: its directories, its lock, and where models and logs really go."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lmx_site.config import Config
from lmx_site.paths import server_file
from models_admin import lmstudio

log = logging.getLogger(__name__)

DIRECTORIES = ("models", "logs", "cache", "run")


class StartRefused(Exception):
    """The server cannot start; the message is one line for the owner: what, and what to do."""


@dataclass(frozen=True, slots=True)
class Places:
    """``models`` takes what is fetched; ``roots`` are searched for models, ``models`` first."""

    models: Path
    roots: list[Path]
    log_file: Path
    warnings: list[str] = field(default_factory=list)


def prepare(home: Path) -> None:
    """Make the directories; raise ``StartRefused`` when that is not possible."""
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)  # logs and databases say who asks for what
        for name in DIRECTORIES:
            (home / name).mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass
    except (FileExistsError, NotADirectoryError) as error:
        raise StartRefused(
            f"{home} cannot be written: a file is where a directory must be; set LMX_HOME to another directory"
        ) from error
    except OSError as error:
        raise StartRefused(
            f"{home} cannot be written ({error.strerror}); make it writable or set LMX_HOME to another directory"
        ) from error


def places(config: Config, home: Path) -> Places:
    """Where models and logs go. What cannot be written falls back under ``home`` with a warning."""
    warnings: list[str] = []
    own = home / "models"
    wanted = config.models.models_directory
    models = own
    roots = [own]
    if wanted is not None and wanted != own:
        if _writable_directory(wanted):
            models, roots = wanted, [wanted]
        else:
            warnings.append(f"models.models_directory {wanted} cannot be written; models go to {own}")
            roots = [own, wanted]
    roots += [own] if own not in roots else []
    extra = config.models.extra_directories
    roots += [directory for directory in (known_directories() if extra is None else extra) if directory not in roots]
    log_file = home / "logs" / "server.log"
    if config.logging.file is not None:
        if _writable_file(config.logging.file):
            log_file = config.logging.file
        else:
            warnings.append(f"logging.file {config.logging.file} cannot be written; the log goes to {log_file}")
    return Places(models, roots, log_file, warnings)


def known_directories() -> list[Path]:
    """Where LM Studio and the Hugging Face tools keep models, as far as that exists or is named on this machine."""
    hub = hub_cache()
    # A link that leads nowhere is a volume that is away.
    hubs = [hub] if os.path.isdir(hub) or os.path.islink(hub) else []
    try:
        studio = lmstudio.model_folders(lmstudio.find_home())
    except Exception:  # what another program's files are never stops the start
        log.warning("LM Studio's model folders cannot be told", exc_info=True)
        studio = []
    return [*studio, *hubs]


def hub_cache() -> Path:
    """Where the Hugging Face tools keep what they fetch, there or not."""
    env = os.environ
    cache = Path(env.get("HF_HOME") or Path(env.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    return Path(env.get("HF_HUB_CACHE") or cache / "hub").expanduser().absolute()


def _writable_directory(directory: Path) -> bool:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            return True
    except OSError:
        return False


def _writable_file(file: Path) -> bool:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a"):
            return True
    except OSError:
        return False


class HomeLock:
    """Held while a server runs on a home. The kernel lets go of it whenever and however the process ends."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._lock = FileLock(home / "run" / "server.lock", timeout=0)

    def acquire(self) -> None:
        """Raise ``StartRefused`` naming the process and port of the server that holds it."""
        try:
            self._lock.acquire()
        except Timeout as error:
            raise StartRefused(self._held_by()) from error
        except OSError as error:
            raise StartRefused(f"{self._lock.lock_file} cannot be locked ({error.strerror})") from error

    def publish(self, host: str, port: int, url: str) -> None:
        """Write ``run/server.json``: whole or not at all."""
        content = {"pid": os.getpid(), "host": host, "port": port, "url": url}
        target = server_file(self._home)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".server-")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(content, file)
        os.replace(temporary, target)

    def release(self) -> None:
        """Give up what ``acquire`` got; nothing where it got nothing."""
        if not self._lock.is_locked:
            return
        with suppress(OSError):
            server_file(self._home).unlink(missing_ok=True)
        self._lock.release()

    def _held_by(self) -> str:
        known = read_server_file(self._home)
        who = f" (pid {known['pid']}, port {known['port']}, {known['url']})" if known else ""
        return f"another server{who} already runs on {self._home}; stop it, or set LMX_HOME to another directory"


def read_server_file(home: Path) -> dict[str, Any] | None:
    """What the running server wrote, None when there is nothing readable."""
    try:
        content = json.loads(server_file(home).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and {"pid", "host", "port", "url"} <= content.keys() else None
