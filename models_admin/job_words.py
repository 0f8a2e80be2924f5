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
}


def describe(progress: Progress) -> str:
    """A progress as a line: ``downloading 45 of 93 MB``. An MB is 2**20 bytes, as everywhere here."""
    words = _WORDS.get(progress.phase, progress.phase)
    if not progress.total:
        return words.rstrip(",")
    if progress.unit == "bytes":
        return f"{words} {progress.done / _MIB:.0f} of {progress.total / _MIB:.0f} MB"
    if progress.unit == "files":
        return words.rstrip(",")
    return f"{words} {progress.done} of {progress.total} {progress.unit}"
