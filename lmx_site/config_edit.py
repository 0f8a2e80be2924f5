"""Changes to ``config.yaml`` that keep the owner's comments and order, and a copy of what was there before."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import CommentMark, YAMLError
from ruamel.yaml.scalarstring import DoubleQuotedScalarString
from ruamel.yaml.tokens import CommentToken

from lmx_site.config import ConfigError, load_config
from lmx_site.config_yaml import MAX_BYTES, KeyPath, parse_scalar, read_document

_COPY = ".before-lmstudio"


class EditError(Exception):
    """Nothing was written; the text is one line (or one for each mistake) for people."""


def read_text(file: Path) -> str:
    """The file's text, empty where there is none. Raises ``EditError``."""
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
        return data.decode("utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        raise EditError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise EditError(f"{file} is not UTF-8; save it so, then try again") from error


def edited(text: str, changes: Mapping[KeyPath, Any]) -> str:
    """The YAML with those values set, by key path. A list that begins with what is there is added to."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = MAX_BYTES  # long lines stay as they are
    try:
        document = yaml.load(text)
        if document is None:
            document = CommentedMap()
            # A file of nothing but comments: they stay above.
            head = text if not text or text.endswith("\n") else text + "\n"
        else:
            head = ""
        for path, value in changes.items():
            _set(document, tuple(_quoted(key) for key in path), _quoted(value))
        out = io.StringIO()
        yaml.dump(document, out)
    except (YAMLError, RecursionError, ValueError, TypeError, AttributeError) as error:
        raise EditError(f"config.yaml cannot be changed by a program: {str(error).splitlines()[0]}") from error
    return head + out.getvalue()


def save(file: Path, text: str) -> Path:
    """Write it whole or not at all, after checking it, and return where the old content is kept.

    A link is followed: the file that it leads to is written. Raises ``EditError``.
    """
    file = Path(os.path.realpath(file))
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        old = file.read_bytes() if file.exists() else None
        mode = file.stat().st_mode & 0o777 if file.exists() else 0o600
        written = _written(file, text.encode(), mode)
        try:
            load_config(written)
            copy = _free(file)
            record = {"written_sha256": _digest(text.encode()), "there_was_no_file": old is None}
            os.replace(_written(copy, json.dumps(record).encode(), 0o600), _record(copy))
            os.replace(_written(copy, old or b"", mode & 0o600), copy)
            os.replace(written, file)
        finally:
            written.unlink(missing_ok=True)
    except ConfigError as error:
        problems = [problem.replace(str(written), str(file)) for problem in error.problems]
        raise EditError("\n     ".join(["with these changes it would not be valid:", *problems])) from error
    except OSError as error:
        raise EditError(f"{file} cannot be written: {error.strerror}") from error
    return copy


def restore(file: Path, *, force: bool = False) -> tuple[Path, Path | None]:
    """Put the newest copy back; return it and where the present content is now, None where there was none.

    Only what was written with that copy is replaced, unless ``force``. Raises ``EditError``.
    """
    file = Path(os.path.realpath(file))
    copies = _copies(file)
    if not copies:
        raise EditError(f"there is nothing to undo: no {file.name}{_COPY} lies beside {file}")
    copy, undone = copies[-1], None
    try:
        present = file.read_bytes() if file.exists() else None
        record = _read_record(copy)
        if not force and (present is None or record.get("written_sha256") != _digest(present)):
            raise EditError(f"{file.name} was changed since; the copy is {copy} (--force puts it back all the same)")
        mode = copy.stat().st_mode & 0o777
        if present is not None:
            now = file.stat().st_mode & 0o777
            mode &= now
            undone = _unused(file.with_name(f"{file.name}.undone"))
            os.replace(_written(undone, present, now & 0o600), undone)
        if record.get("there_was_no_file") is True:
            file.unlink(missing_ok=True)
        else:
            os.replace(_written(file, copy.read_bytes(), mode), file)
        copy.unlink()
        _record(copy).unlink(missing_ok=True)
    except OSError as error:
        raise EditError(f"{file} cannot be put back: {error.strerror}") from error
    return copy, undone


def values_of(file: Path) -> dict[str, Any]:
    """What stands in the file. Raises ``EditError`` when it is no valid configuration."""
    try:
        load_config(file if file.exists() else None)
        return read_document(file).values if file.exists() else {}
    except ConfigError as error:
        raise EditError("\n     ".join(error.problems)) from error
    except OSError as error:
        raise EditError(f"{file} cannot be read: {error.strerror}") from error


def _copies(file: Path) -> list[Path]:
    """The copies, oldest first: without a number, then -2, -3."""
    found = [(1, file.with_name(file.name + _COPY)), *((n, _numbered(file, n)) for n in range(2, 1000))]
    return [path for _, path in found if path.exists()]


def _record(copy: Path) -> Path:
    """Beside a copy: the SHA-256 of what was written then, and whether there was no file before."""
    return copy.with_name(f"{copy.name}.json")


def _read_record(copy: Path) -> dict[str, Any]:
    try:
        record = json.loads(_record(copy).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _unused(file: Path) -> Path:
    """That name, or the first with a number behind it that nothing has."""
    names = (file, *(file.with_name(f"{file.name}-{number}") for number in range(2, 1000)))
    for name in names:
        if not os.path.lexists(name):
            return name
    raise EditError(f"there are too many of {file}: remove some")


def _numbered(file: Path, number: int) -> Path:
    return file.with_name(f"{file.name}{_COPY}-{number}")


def _free(file: Path) -> Path:
    newest = _copies(file)
    if not newest:
        return file.with_name(file.name + _COPY)
    last = newest[-1].name.rpartition(_COPY + "-")[2]
    return _numbered(file, int(last) + 1 if last.isdecimal() else 2)


def _written(file: Path, data: bytes, mode: int) -> Path:
    """A new file beside it with that content, on the disk."""
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")
    with os.fdopen(handle, "wb") as stream:
        os.fchmod(stream.fileno(), mode)
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    return Path(name)


def _quoted(value: Any) -> Any:
    """Text that YAML 1.1, which reads the file, would take for something else (``yes``, ``1:20``) goes in quotes."""
    if isinstance(value, list):
        return [_quoted(item) for item in value]
    return DoubleQuotedScalarString(value) if isinstance(value, str) and parse_scalar(value) != value else value


def _set(document: CommentedMap, path: KeyPath, value: Any) -> None:
    at = document
    for key in path[:-1]:
        if at.get(key) is None:
            _put(at, key, CommentedMap())
        at = at[key]
    there = at.get(path[-1])
    if isinstance(there, CommentedSeq) and isinstance(value, list) and value[: len(there)] == list(there):
        rest = _cut_tail(there)
        there.extend(value[len(there) :])
        _hang(there, len(there) - 1, rest)
    else:
        _put(at, path[-1], value)


def _put(at: CommentedMap, key: str, value: Any) -> None:
    if key in at:
        at[key] = value
        return
    rest = _cut_tail(at)
    at[key] = value
    if rest and not isinstance(value, CommentedMap):
        _hang(at, key, rest)


def _cut_tail(node: Any) -> str:
    """Take the comments off that follow the last entry on lines of their own: they belong to what comes next."""
    while isinstance(node, CommentedMap | CommentedSeq) and len(node):
        key: Any = list(node)[-1] if isinstance(node, CommentedMap) else len(node) - 1
        tokens = node.ca.items.get(key)
        token = tokens[2 if isinstance(node, CommentedMap) else 0] if tokens else None
        if isinstance(token, CommentToken):
            line, newline, rest = token.value.partition("\n")
            token.value = line + newline
            return rest
        node = node[key]
    return ""


def _hang(node: Any, key: Any, rest: str) -> None:
    if rest:
        token = CommentToken("\n" + rest, CommentMark(0), None)
        node.ca.items[key] = [None, None, token, None] if isinstance(node, CommentedMap) else [token, None, None, None]
