"""What went wrong with the Hub, in one sentence and a code. Imports the Hub's library: for the child only."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

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

from inference.errors import InvalidRequest
from models_admin.fetch_names import endpoint
from models_admin.fetch_retry import passing
from models_admin.job_child import JobError

_KEPT = "What was fetched is kept; it goes on at the next start of the server, or when it is resumed."


@contextlib.contextmanager
def explained(repo: str, revision: str, *, pinned: bool = False) -> Iterator[None]:
    """Turn what the library raises into ``JobError``; files' own ``OSError``s pass.

    ``pinned``: ``revision`` is a commit that was there when the fetch began.
    """
    try:
        yield
    except InvalidRequest as error:
        raise JobError(f"The Hub calls the model by a name that is none: {error.message}", code="hub_error") from error
    except OfflineModeIsEnabled as error:
        raise JobError(
            "HF_HUB_OFFLINE is set, so nothing is fetched; unset it and restart the server.", code="hub_unreachable"
        ) from error
    except HfHubHTTPError as error:
        raise _refusal(error, repo, revision, pinned=pinned) from error
    except (httpx2.TimeoutException, TimeoutError) as error:
        raise JobError(f"{endpoint()} does not answer in time. {_KEPT}", code="hub_unreachable") from error
    except (httpx2.HTTPError, ConnectionError) as error:
        raise JobError(
            f"{endpoint()} cannot be reached (is there a network? is HF_ENDPOINT right?): {_first_line(error)}. "
            f"{_KEPT}",
            code="hub_unreachable",
        ) from error
    except (ValueError, TypeError, KeyError) as error:
        raise JobError(
            f"{endpoint()} answered with what is no answer: {_first_line(error)}", code="hub_error"
        ) from error


def _refusal(error: HfHubHTTPError, repo: str, revision: str, *, pinned: bool) -> JobError:
    status = error.response.status_code if error.response is not None else 0
    unknown = isinstance(error, RepositoryNotFoundError) and not isinstance(error, GatedRepoError)
    if isinstance(error, GatedRepoError) or (status in (401, 403) and not unknown):
        return JobError(
            f"{repo} is gated or private: accept its terms at {endpoint()}/{repo}, set HF_TOKEN to a token of that "
            "account, and restart the server.",
            code="model_gated",
        )
    if pinned and (
        isinstance(error, RevisionNotFoundError | RemoteEntryNotFoundError) or (status == 404 and not unknown)
    ):
        return JobError(
            f"The commit {revision[:12]} of {repo} is not at the Hub any more, or not all of it: its history was "
            "rewritten while it was fetched. Try again to fetch what is there now.",
            code="revision_gone",
        )
    if isinstance(error, RevisionNotFoundError):
        return JobError(f"{repo} has no revision {revision!r} at the Hub.", code="revision_not_found")
    if unknown:
        return JobError(
            f"There is no model {repo} at {endpoint()} (or it is private: then set HF_TOKEN and restart the server).",
            code="model_not_found",
        )
    if isinstance(error, DisabledRepoError):
        return JobError(f"{repo} was disabled at the Hub.", code="model_gated")
    if status == 429:
        return JobError(f"The Hub has asked to wait (too many requests) for too long. {_KEPT}", code="hub_unreachable")
    if passing(error) is None:
        return JobError(f"The Hub refuses {repo} with status {status}.", code="hub_error")
    return JobError(f"The Hub answers with status {status} for {repo}. {_KEPT}", code="hub_unreachable")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
