"""The bytes of one file of the Hub, into a part file, from where that ends. For the child only.

The Hub's library gives the session (proxies, certificates, hooks), the headers and the errors. Its own ``http_get``
waits and tries again where nobody sees it, and holds back 10 MiB at a time.
"""

from __future__ import annotations

import re

import httpx2
from huggingface_hub import constants
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from models_admin.fetch_hash import PartFile, WrongContent

_RANGE = re.compile(r"bytes (\d+)-\d*/(\d+|\*)")


def receive(url: str, part: PartFile, size: int) -> None:
    """Bring what is missing of a file of ``size`` bytes.

    Raises ``WrongContent`` where the Hub has another number of bytes than it said, and what the library raises for
    refusals and broken connections; what came until then is in ``part``. A redirect to another host goes without the
    token: the session takes care of that.
    """
    start = part.tell()
    if start == size:
        return
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    timeout = httpx2.Timeout(constants.HF_HUB_DOWNLOAD_TIMEOUT)
    with get_session().stream("GET", url, headers=headers, timeout=timeout) as response:
        if response.status_code == 416:
            raise WrongContent("ends before the part that is here already")
        hf_raise_for_status(response)
        _check_head(response, part, start, size)
        for chunk in response.iter_bytes():
            part.write(chunk)
    if part.tell() != size:
        raise WrongContent(f"ended after {part.tell()} bytes of the {size} that were promised")


def _check_head(response: httpx2.Response, part: PartFile, start: int, size: int) -> None:
    """What the answer is about must be what was asked for, before a byte of it is written."""
    if response.status_code == 206:
        found = _RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
        if found is None or int(found[1]) != start or found[2] not in ("*", str(size)):
            raise WrongContent("came as another part than was asked for")
        return
    if start:  # the range was ignored: it begins anew
        part.truncate()
    length = response.headers.get("Content-Length", "")
    if "Content-Encoding" not in response.headers and length.isdigit() and int(length) != size:
        raise WrongContent(f"has {length} bytes and not the {size} that were promised")
