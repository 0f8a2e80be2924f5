"""Why the Hub did not answer a question, in one sentence and a code. For the process that asks the Hub only."""

from __future__ import annotations

import httpx2
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from models_admin.fetch_names import endpoint

LONGEST_WAIT_S = 3600.0
_DEFAULT_WAIT_S = 60.0


class HubRefusal(Exception):
    """``code`` is for programs; ``retry_after`` in seconds."""

    def __init__(self, code: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.retry_after = code, message, retry_after


def refusal(error: Exception, subject: str) -> HubRefusal:
    """What became of a question about ``subject`` (a model, or a search)."""
    if isinstance(error, HubRefusal):
        return error
    if isinstance(error, OfflineModeIsEnabled):
        return HubRefusal(
            "hub_unreachable", "HF_HUB_OFFLINE is set, so the Hub is not asked; unset it and restart the server."
        )
    if isinstance(error, HfHubHTTPError):
        return _by_status(error, subject)
    if isinstance(error, httpx2.TimeoutException | TimeoutError):
        return HubRefusal("hub_unreachable", f"{endpoint()} did not answer in time. Try again.")
    if isinstance(error, httpx2.HTTPError | OSError):
        return HubRefusal(
            "hub_unreachable",
            f"{endpoint()} cannot be reached: {_first_line(error)}. Is there a network? Is HF_ENDPOINT right?",
        )
    return HubRefusal("hub_error", f"{endpoint()} answered with what is no answer: {_first_line(error)}")


def _by_status(error: HfHubHTTPError, subject: str) -> HubRefusal:
    status = error.response.status_code if error.response is not None else 0
    unknown = isinstance(error, RepositoryNotFoundError) and not isinstance(error, GatedRepoError)
    if isinstance(error, RevisionNotFoundError):
        return HubRefusal("revision_not_found", f"{subject} has no such revision at the Hub.")
    if isinstance(error, GatedRepoError | DisabledRepoError):
        return HubRefusal("model_gated", f"{subject} is gated: accept its terms at {endpoint()}/{subject}.")
    if isinstance(error, RemoteEntryNotFoundError):
        return HubRefusal("file_not_found", f"There is no such file in {subject}.")
    if unknown or status == 404:
        return HubRefusal(
            "model_not_found",
            f"There is no model {subject} at {endpoint()}, or it is private: then set HF_TOKEN and restart the server.",
        )
    if status == 401:
        return HubRefusal(
            "hub_error", "The Hub does not take the token it was sent: set another in HF_TOKEN and restart."
        )
    if status == 403:
        return HubRefusal("model_gated", f"The Hub does not show {subject} to this account.")
    if status == 429:
        wait = _wait(error)
        return HubRefusal("rate_limit_exceeded", f"The Hub asks to wait {wait:.0f} s: too many questions.", wait)
    if status == 400:
        return HubRefusal("hub_error", f"{endpoint()} does not understand this search.")
    return HubRefusal("hub_unreachable", f"{endpoint()} answered with status {status}. Try again later.")


def _wait(error: HfHubHTTPError) -> float:
    """Seconds of ``Retry-After``, within reason."""
    headers = error.response.headers if error.response is not None else {}
    try:
        seconds = float(headers.get("Retry-After", ""))
    except ValueError:
        seconds = _DEFAULT_WAIT_S
    return min(max(seconds, 1.0), LONGEST_WAIT_S) if seconds == seconds else _DEFAULT_WAIT_S


def _first_line(error: BaseException) -> str:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return "".join(character if character.isprintable() else "?" for character in line).rstrip(".")
