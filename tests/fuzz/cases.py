"""What is sent: per operation, requests that fit the document, requests near to a good one, and requests that break it.

A request made from a schema alone is nearly always refused, because most parameters exclude some other; then only the
refusals would be tried. *Near* takes a request that is answered and puts a few parameters of a generated one into it.
"""

from __future__ import annotations

from typing import Any, Literal

from hypothesis import strategies as st
from schemathesis import APIOperation, Case, GenerationMode

from inference.api import admin, lmstudio, v1
from inference.api import urls as _urls  # noqa: F401 - registers every route
from tests.fuzz.site import CHAT, REPO, VECTORS

Kind = Literal["fitting", "near", "breaking"]
KINDS: tuple[Kind, ...] = ("fitting", "near", "breaking")
DOCUMENTS = {one.prefix: one for one in (v1.api, admin.api, lmstudio.api)}

_SAID = [{"role": "user", "content": "Say something."}]
_TALK = {"model": CHAT, "messages": _SAID, "max_tokens": 4}
_TEXT = {"model": CHAT, "prompt": "Once", "max_tokens": 4}
_VECTORS = {"model": VECTORS, "input": "Once"}
_RESPONSE = {"model": CHAT, "input": "Say something.", "max_output_tokens": 4}
GOOD: dict[str, dict[str, Any]] = {
    "create_chat_completion": _TALK,
    "lms_chat_v0": _TALK,
    "create_completion": _TEXT,
    "lms_completion_v0": _TEXT,
    "create_embedding": _VECTORS,
    "lms_embeddings_v0": _VECTORS,
    "tokenize": {"model": CHAT, "prompt": "Once"},
    "detokenize": {"model": CHAT, "tokens": [65, 66]},
    "create_message": _TALK,
    "count_message_tokens": {"model": CHAT, "messages": _SAID},
    "create_response": _RESPONSE,
    "count_response_input_tokens": _RESPONSE,
    "load_model": {"model_id": CHAT},
    "unload_model": {"model_id": VECTORS},
    "unload_model_post": {"model_id": VECTORS},
    "cancel_request": {"id": "chatcmpl-1"},
    "download_model": {"model_id": REPO},
    "verify_model": {"model_id": VECTORS},
    "fit_model": {"model_id": REPO},
    "delete_model": {"model_id": REPO},
    "lms_load": {"model": CHAT},
    "lms_unload": {"instance_id": VECTORS},
    "lms_download": {"model": REPO},
}
"""A body that is answered, by operation."""

_STREAMED = {
    "create_chat_completion",
    "create_completion",
    "create_message",
    "create_response",
    "lms_chat_v0",
    "lms_completion_v0",
}
_NAMES = st.sampled_from([CHAT, VECTORS, "no-such-model"])


def operations() -> list[tuple[str, str, str, Kind]]:
    """Prefix of the document, method, path and kind of everything that can be asked."""
    return [
        (prefix, method.upper(), path, kind)
        for prefix, api in DOCUMENTS.items()
        for path, item in api.get_openapi_schema()["paths"].items()
        for method, operation in item.items()
        for kind in KINDS
        if kind != "breaking" or _can_be_broken(operation)
    ]


def _can_be_broken(operation: dict[str, Any]) -> bool:
    """Whether there is anything in it that not every text fits."""
    told = [one["schema"] for one in operation["parameters"]]
    return "requestBody" in operation or any(one.keys() - {"title", "type"} or one["type"] != "string" for one in told)


def cases(operation: APIOperation, kind: Kind, places: dict[str, list[Any]]) -> st.SearchStrategy[Case]:
    """Requests of that kind; ``places`` are values of path parameters, by their name or by the operation's."""
    if kind == "breaking":
        return operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
    fitting = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    return fitting if kind == "fitting" else st.builds(_near, fitting, st.just(places), st.data())


def _near(case: Case, places: dict[str, list[Any]], data: st.DataObject) -> Case:
    operation: str = case.operation.definition.raw["operationId"]
    for name in case.path_parameters:
        case.path_parameters[name] = data.draw(st.sampled_from(places.get(operation) or places[name]))
    good = GOOD.get(operation)
    if good is not None and isinstance(case.body, dict):
        taken = data.draw(st.lists(st.sampled_from(sorted(case.body)), max_size=3, unique=True)) if case.body else []
        body = good | {name: case.body[name] for name in taken}
        if "model" in body:
            body["model"] = data.draw(_NAMES) if "model" in taken else good["model"]
        if operation in _STREAMED and data.draw(st.booleans()):
            body["stream"] = True
        case.body = body
    for sent, name in ((case.query, "stream"), (case.query, "after"), (case.headers, "X-Timeout")):
        if name in sent and data.draw(st.booleans()):
            del sent[name]
    return case
