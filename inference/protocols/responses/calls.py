"""From a request's bytes to what is to be done: a ``Call`` with its wording, and what is to be kept of it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from functools import partial

import orjson

from inference.errors import InvalidRequest, NotFound
from inference.ipc import GenerateRequest, Sampling
from inference.model_settings import NO_SETTINGS, ModelSettings
from inference.principal import Principal
from inference.protocols.jsonbody import parse_object
from inference.protocols.openai.params import CommonParams, sampling, stops
from inference.protocols.openai.reasoning import ReasoningParams, Thoughts, thoughts
from inference.protocols.owner import settings_for, with_defaults
from inference.protocols.responses.fitting import fitted
from inference.protocols.responses.items import Item, references, response_of, stored_form
from inference.protocols.responses.messages import as_messages
from inference.protocols.responses.requests import ENCRYPTED, LOGPROBS, ResponsesRequest, check, ignored
from inference.protocols.responses.shown import new_response
from inference.protocols.responses.store import ResponseStore, Stored, owner_of
from inference.protocols.responses.tools import output_format, tool_choice, tool_list
from inference.protocols.responses.wording import Gathered, ResponseWording, named
from inference.protocols.serving import Call
from inference.protocols.validation import refuse, validate
from inference.records import RequestRecord

PATH = "/v1/responses"
_SAMPLING = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "logit_bias",
)


@dataclass(frozen=True, slots=True)
class Parsed:
    """A request's parameters, its conversation, and what the response is to be called.

    ``inputs`` is what of the conversation is new, ``history`` what it goes on from, both in stored form.
    """

    params: ResponsesRequest
    id: str
    owner: str
    principal: Principal
    inputs: list[Item]
    history: list[Item]
    ignored: list[str]
    settings: ModelSettings = NO_SETTINGS

    def request(self, without: int = 0) -> GenerateRequest:
        """What the worker is to do, less the ``without`` oldest items; ``InvalidRequest`` names what it cannot."""
        params = self.params
        tools = tool_list(params.tools)
        mode, names = tool_choice(params.tool_choice, tools)
        thinking = _thoughts(params)
        request = GenerateRequest(
            messages=as_messages(params.instructions, [*self.history, *self.inputs][without:]),
            max_tokens=params.max_output_tokens,
            stop=stops(params.stop),
            sampling=_sampling(params),
            output_format=output_format(params.text),
            tools=tools,
            tool_choice=mode,
            tool_names=names,
            parallel_tool_calls=params.parallel_tool_calls is not False,
            template_kwargs=thinking.template,
            thinking_budget=thinking.budget,
        )
        return with_defaults(request, params, self.settings)

    def record(self, suffix: str = "") -> RequestRecord:
        return RequestRecord(
            id=self.id + suffix,
            protocol="responses",
            endpoint=PATH,
            principal=self.principal,
            model_asked=self.params.model or "",
            stream=bool(self.params.stream) and not suffix,
        )


@dataclass(slots=True)
class Asked:
    """One request, ready to be served."""

    parsed: Parsed
    call: Call
    wording: ResponseWording

    @property
    def background(self) -> bool:
        return bool(self.parsed.params.background)

    def stored(self, events: bytes | None = None) -> Stored:
        """The response as it is now, for the store."""
        return Stored.of(self.wording.response, self.parsed.owner, self.parsed.inputs, events)


async def parsed(body: bytes, principal: Principal, store: ResponseStore, *, strict: bool = False) -> Parsed:
    """What the bytes ask for. ``InvalidRequest`` names the parameter at fault; ``strict`` refuses unknown ones."""
    params = validate(ResponsesRequest, parse_object(body))
    unknown = ignored(params, strict=strict)
    check(params)
    settings = settings_for(params.model)
    params = _shown(params, settings)
    owner = owner_of(principal)
    response_id = "resp_" + secrets.token_hex(16)
    history = await _history(params.previous_response_id, owner, store)
    known = await _referred(params, owner, store)
    inputs = stored_form(params.input, response_id, known)
    return Parsed(params, response_id, owner, principal, inputs, history, unknown, settings)


def asked(parsed: Parsed, store: ResponseStore) -> Asked:
    """How it is served. A response that is not made in the background is stored when it is finished."""
    params, record = parsed.params, parsed.record()
    seal = ENCRYPTED in params.included
    wording = ResponseWording(new_response(params, parsed.id), seal=seal)
    call = Call(
        model=record.model_asked,
        request=parsed.request(),
        record=record,
        wording=wording,
        stream=record.stream,
        ignored=parsed.ignored,
        ttl_s=params.ttl,
        named=named,
        answer=partial(Gathered, wording=wording, record=record),
    )
    if params.truncation == "auto":
        call.fit = partial(_fit, parsed)
    made = Asked(parsed, call, wording)
    if params.stored and not made.background:
        wording.on_last = lambda: store.put(made.stored())
    return made


async def _fit(parsed: Parsed) -> GenerateRequest:
    items = [*parsed.history, *parsed.inputs]
    new_record = partial(parsed.record, "-count")
    return await fitted(parsed.params.model or "", items, parsed.request, new_record)


async def _history(previous: str | None, owner: str, store: ResponseStore) -> list[Item]:
    """Inputs and outputs of ``previous`` and all that it goes on from, in order."""
    if previous is None:
        return []
    chain = await store.chain(previous, owner)
    if chain is None:
        raise InvalidRequest(
            f"Previous response with id {previous[:80]!r} not found: it, or one that it goes on from, was never "
            "stored here, was deleted, or made room for others",
            param="previous_response_id",
            code="previous_response_not_found",
        )
    if chain[-1].status in ("queued", "in_progress"):
        raise refuse("previous_response_id", f"is {previous[:80]!r}, which is not finished yet")
    items: list[Item] = []
    for entry in chain:
        items += orjson.loads(entry.inputs)
        items += orjson.loads(entry.output)
    return items


async def _referred(params: ResponsesRequest, owner: str, store: ResponseStore) -> dict[str, Item]:
    """The stored items that the input refers to, by id."""
    found: dict[str, Item] = {}
    for item_id in references(params.input):
        response_id = response_of(item_id)
        entry = await store.get(response_id, owner) if response_id is not None and item_id not in found else None
        if entry is not None:
            stored = [*orjson.loads(entry.inputs), *orjson.loads(entry.output)]
            found |= {item["id"]: item for item in stored}
        if item_id not in found:
            message = f"Item with id {item_id[:80]!r} not found; items are kept with the responses that are stored"
            raise NotFound(message, param="input", code="item_not_found")
    return found


def _shown(params: ResponsesRequest, settings: ModelSettings) -> ResponsesRequest:
    """The parameters with the owner's values where a response tells what it was made with."""
    given = {name: getattr(settings, name) for name in ("temperature", "top_p") if getattr(params, name) is None}
    return params.model_copy(update={name: value for name, value in given.items() if value is not None})


def _sampling(params: ResponsesRequest) -> Sampling:
    fields = {name: getattr(params, name) for name in _SAMPLING}
    return sampling(CommonParams(**fields), (params.top_logprobs or 0) if LOGPROBS in params.included else None)


def _thoughts(params: ResponsesRequest) -> Thoughts:
    return thoughts(
        ReasoningParams(
            reasoning_effort=params.reasoning.effort if params.reasoning is not None else None,
            enable_thinking=params.enable_thinking,
            thinking_token_budget=params.thinking_token_budget,
            chat_template_kwargs=params.chat_template_kwargs,
        )
    )
