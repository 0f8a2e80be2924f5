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
from models_admin.job_child import JobError


@contextlib.contextmanager
def explained(repo: str, revision: str) -> Iterator[None]:
    """Turn what the library raises into ``JobError``; files' own ``OSError``s pass."""
    try:
        yield
    except InvalidRequest as error:
        raise JobError(f"The Hub calls the model by a name that is none: {error.message}", code="hub_error") from error
    except OfflineModeIsEnabled as error:
        raise JobError(
            "HF_HUB_OFFLINE is set, so nothing is fetched; unset it and restart the server.", code="hub_unreachable"
        ) from error
    except HfHubHTTPError as error:
        raise _refusal(error, repo, revision) from error
    except (httpx2.TimeoutException, TimeoutError) as error:
        raise JobError(
            f"{endpoint()} did not answer in time; what was fetched is kept. Start it again.", code="hub_unreachable"
        ) from error
    except (httpx2.HTTPError, ConnectionError) as error:
        raise JobError(
            f"{endpoint()} cannot be reached (is there a network? is HF_ENDPOINT right?): {_first_line(error)}; what "
            "was fetched is kept. Start it again later.",
            code="hub_unreachable",
        ) from error
    except OSError as error:
        if error.errno is None:  # the library's: fewer bytes than announced
            raise JobError(
                f"The Hub sent another number of bytes of {repo} than it said; start it again.", code="hub_error"
            ) from error
        raise
    except (ValueError, TypeError, KeyError) as error:
        raise JobError(
            f"{endpoint()} answered with what is no answer: {_first_line(error)}", code="hub_error"
        ) from error


def _refusal(error: HfHubHTTPError, repo: str, revision: str) -> JobError:
    status = error.response.status_code if error.response is not None else 0
    unknown = isinstance(error, RepositoryNotFoundError) and not isinstance(error, GatedRepoError)
    if isinstance(error, GatedRepoError) or (status in (401, 403) and not unknown):
        return JobError(
            f"{repo} is gated or private: accept its terms at {endpoint()}/{repo}, set HF_TOKEN to a token of that "
            "account, and restart the server.",
            code="model_gated",
        )
    if isinstance(error, RevisionNotFoundError):
        return JobError(f"{repo} has no revision {revision!r} at the Hub.", code="revision_not_found")
    if unknown:
        return JobError(
            f"There is no model {repo} at {endpoint()} (or it is private: then set HF_TOKEN and restart the server).",
            code="model_not_found",
        )
    if isinstance(error, RemoteEntryNotFoundError) or status == 404:
        return JobError(f"A file of {repo} is not at the Hub any more; start it again.", code="hub_error")
    if isinstance(error, DisabledRepoError):
        return JobError(f"{repo} was disabled at the Hub.", code="model_gated")
    if status == 429:
        return JobError("The Hub asks to wait (too many requests); start it again later.", code="hub_unreachable")
    return JobError(f"The Hub answered with status {status} for {repo}; start it again later.", code="hub_unreachable")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
