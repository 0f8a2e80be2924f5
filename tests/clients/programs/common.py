"""What the Python programs share: where the server is, what is asked of it, and how an error is told."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

URL = os.environ["SERVER_URL"]
KEY = os.environ["SERVER_KEY"]
DOCUMENT = Path("docs/clients.md")
TOO_LONG = "word " * 3000
ROOM = 1000
"""Tokens that a small object fits into, whatever white space a random model puts between its parts."""


def raised(call: Callable[[], Any]) -> dict[str, Any]:
    """The error that it raises: the names of its classes, its status, what it says."""
    try:
        call()
    except Exception as error:
        names = [kind.__name__ for kind in type(error).__mro__]
        return {"classes": names, "status": getattr(error, "status_code", None), "says": str(error)}
    raise AssertionError("nothing was raised")


def documented(heading: str) -> str:
    """What the example prints that stands below ``heading`` in the document, with this server, key and models."""
    section = DOCUMENT.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    [code] = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    for shown, meant in (
        ("http://127.0.0.1:1234", URL),
        ("my-app", KEY),
        ("org/name", "thinker"),
        ("org/embedder", "org/vectors"),
    ):
        code = code.replace(shown, meant)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, str(DOCUMENT), "exec"), {})
    return printed.getvalue()
