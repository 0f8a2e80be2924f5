"""The key Django signs cookies with: a file in ``LMX_HOME``, readable by its owner only."""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path

NAME = "secret_key"
_BYTES = 48
_LENGTHS = range(32, 4097)  # shorter ones can be guessed: whoever knows the key can sign a login


def read_secret_key(home: Path) -> str | None:
    """The key, None when there is none yet, or one that is damaged or too short to be safe."""
    try:
        with (home / NAME).open("rb") as file:
            key = file.read(_LENGTHS.stop).decode("ascii").strip()
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
        return None
    return key if len(key) in _LENGTHS else None


def ensure_secret_key(home: Path) -> str:
    """The key, made if need be. Two processes that start at once agree on one: the file appears whole or not at all."""
    target = home / NAME
    if (known := read_secret_key(home)) is not None:
        target.chmod(0o600)
        return known
    handle, temporary = tempfile.mkstemp(dir=home, prefix=".secret_key-")  # mkstemp makes it 0600
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(_BYTES) + "\n")
        try:
            os.link(temporary, target)
        except FileExistsError:
            if read_secret_key(home) is None:  # left empty by a full disk, damaged, too short
                os.replace(temporary, target)
    finally:
        Path(temporary).unlink(missing_ok=True)
    key = read_secret_key(home)
    if key is None:
        raise OSError(f"{target} could not be written")
    return key
