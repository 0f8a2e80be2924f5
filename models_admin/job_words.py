"""How far a job is, in words, for terminal and page."""

from __future__ import annotations

from models_admin.job_protocol import Progress

_MIB = 1024**2
_WORDS = {
    "resolve": "asking the Hub",
    "download": "downloading",
    "check": "checking",
    "convert": "converting",
    "tokenizer": "writing the tokenizer,",
    "sign": "taking checksums,",
    "verify": "verifying",
    "compare": "asking the Hub,",
}


def describe(progress: Progress) -> str:
    """A progress as a line: ``downloading 45 of 93 MB``. A note comes before numbers. An MB is 2**20 bytes."""
    words = _WORDS.get(progress.phase, progress.phase)
    if progress.note:
        return progress.note
    if not progress.total:
        return words.rstrip(",")
    if progress.unit == "bytes":
        return f"{words} {progress.done / _MIB:.0f} of {progress.total / _MIB:.0f} MB"
    if progress.unit == "files":
        return words.rstrip(",")
    return f"{words} {progress.done} of {progress.total} {progress.unit}"


def in_line(place: int) -> str:
    """What a job that waits for its turn says; ``place`` is 1 for the next."""
    return "waits for its turn: it is the next" if place == 1 else f"waits for its turn: {place - 1} before it"


def amount(count: int) -> str:
    """Bytes as people read them."""
    return f"{count / _MIB / 1024:.1f} GB" if count >= 1000 * _MIB else f"{count / _MIB:.0f} MB"
