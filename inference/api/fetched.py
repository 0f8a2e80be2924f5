"""Waiting for a fetch on behalf of a request."""

from __future__ import annotations

from inference.api.deps import catalog, fetcher
from inference.errors import InvalidRequest, ModelNotFound, from_code
from inference.fetching import JobStatus


async def ended(job: int) -> JobStatus:
    """The fetch with that number once it is there; raises what kept it from that."""
    found = await fetcher().wait(job)
    if found.state in ("failed", "cancelled", "paused"):
        message = found.message if found.code not in ("job_cancelled", "job_paused") else f"it was {found.state}"
        raise from_code(found.code, message, details={"job": found.job})
    return found


async def begin(name: str, absent: ModelNotFound) -> JobStatus:
    """Have the Hub's model of that name fetched; where the Hub has no such names, ``absent`` is raised."""
    try:
        return await fetcher().start(name)
    except InvalidRequest as error:
        if error.code == "unsupported_model":
            raise
        raise absent from None


async def model_of(job: JobStatus) -> str:
    """The id of what was fetched, once it is there. Raises what kept it from that."""
    path = (await ended(job.job)).result["path"]
    for ref in catalog().all():
        if str(ref.path) == path:
            return ref.id
    raise ModelNotFound(f"{job.subject} was fetched to {path} and is not there any more", param="model_id")
