"""Static files, served by the same process: found once by Django's finders, then checked by modification time."""

from __future__ import annotations

import mimetypes
from pathlib import Path

from asgiref.sync import sync_to_async
from django.contrib.staticfiles import finders
from django.core.exceptions import SuspiciousFileOperation
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotModified
from django.http.response import HttpResponseBase
from django.utils.http import http_date
from django.views.decorators.http import require_safe

_known: dict[str, Path] = {}


@require_safe
async def serve(request: HttpRequest, path: str) -> HttpResponseBase:
    """The file, or 304 when the browser's copy is as new."""
    return await sync_to_async(_answer, thread_sensitive=False)(path, request.headers.get("If-None-Match", ""))


def _answer(path: str, known_tag: str) -> HttpResponseBase:
    file = _find(path)
    try:
        stat = file.stat()
        tag = f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"'
        response: HttpResponseBase = (
            HttpResponseNotModified() if tag == known_tag else HttpResponse(file.read_bytes(), _content_type(file))
        )
    except OSError as error:
        _known.pop(path, None)
        raise Http404(path) from error
    response.headers["ETag"] = tag
    response.headers["Last-Modified"] = http_date(stat.st_mtime)
    response.headers["Cache-Control"] = "no-cache"  # keep it, but ask: an upgrade must show at once
    return response


def _find(path: str) -> Path:
    if (known := _known.get(path)) is not None:
        return known
    try:
        found = finders.find(path)
    except (SuspiciousFileOperation, ValueError) as error:  # "..", an absolute path, a NUL
        raise Http404(path) from error
    if not found or not Path(found).is_file():
        raise Http404(path)
    return _known.setdefault(path, Path(found))


def _content_type(file: Path) -> str:
    kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind.startswith("text/") or kind.endswith("javascript") else kind
