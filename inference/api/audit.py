"""``/admin/audit``: who loaded, deleted or changed what, when and from where."""

from __future__ import annotations

from typing import Any, cast, get_args

import orjson
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from inference.api import admin_answers as answers
from inference.api.admin import api
from inference.api.base import json_response
from inference.api.deps import audit
from inference.errors import InvalidRequest

_MOST = 1000
_LONGEST = 512
_OUTCOMES = get_args(answers.AuditOutcome)
_VIAS = get_args(answers.AuditVia)


@api.route(
    "GET",
    "/audit",
    scope="admin",
    operation_id="list_audit",
    summary="Who loaded, deleted or changed what: the newest first",
    tag="server",
    answers={200: answers.AuditList},
)
async def list_audit(
    request: HttpRequest,
    limit: int = 100,
    who: str = "",
    action: str = "",
    model: str = "",
    outcome: str = "",
    via: str = "",
    since: float | None = None,
    until: float | None = None,
    before: int | None = None,
) -> HttpResponseBase:
    if not 1 <= limit <= _MOST:
        raise InvalidRequest(f"limit must be from 1 to {_MOST}", param="limit")
    if before is not None and not 0 < before < 2**63:
        raise InvalidRequest("before must be the id of an entry", param="before")
    for name, text, known in (("outcome", outcome, _OUTCOMES), ("via", via, _VIAS)):
        if text and text not in known:
            raise InvalidRequest(f"{name} is one of {', '.join(known)}", param=name)
    for name, text in {"who": who, "action": action, "model": model}.items():
        if len(text) > _LONGEST:
            raise InvalidRequest(f"{name} is over {_LONGEST} characters", param=name)
    for name, moment in {"since": since, "until": until}.items():
        if moment is not None and not abs(moment) < 1e12:
            raise InvalidRequest(f"{name} must be seconds since 1970", param=name)
    wanted: dict[str, Any] = {"who": who, "action": action, "model": model, "outcome": outcome, "via": via}
    found = await audit().entries(limit, **wanted, since=since, until=until, before=before)
    following = cast("int", found[-1]["id"]) if len(found) == limit else None
    return json_response(orjson.dumps({"entries": found, "next": following}))
