"""From a request's bytes to what is asked of the engine."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from inference.engine import get_engine
from inference.ipc import GenerateRequest
from inference.principal import Principal
from inference.protocols.anthropic.answer import BlockAnswer
from inference.protocols.anthropic.requests import (
    NO_EFFECT,
    REFUSED,
    CountRequest,
    MessageRequest,
    generate_request,
)
from inference.protocols.anthropic.thinking import thoughts
from inference.protocols.anthropic.wording import PATH, PING, MessageWording
from inference.protocols.jsonbody import parse_object
from inference.protocols.openai.params import ignored
from inference.protocols.owner import settings_for, with_defaults, with_prompt_defaults
from inference.protocols.serving import Call
from inference.protocols.validation import validate
from inference.records import RequestRecord, new_record

COUNT_PATH = "/v1/messages/count_tokens"


def message_call(body: bytes, principal: Principal, *, strict: bool = False) -> Call:
    """A message. ``InvalidRequest`` names the parameter at fault; ``strict`` refuses unknown ones."""
    params = validate(MessageRequest, parse_object(body))
    unknown = ignored(params, strict=strict, refused=REFUSED, no_effect=NO_EFFECT)
    request = with_defaults(generate_request(params), params, settings_for(params.model))
    record = new_record("anthropic", "msg_", params.model, principal, PATH, stream=bool(params.stream))
    visibility = thoughts(params.thinking).visibility
    return Call(
        model=record.model_asked,
        request=request,
        record=record,
        wording=MessageWording(record.id, record.model_asked, max_tokens=params.max_tokens, thoughts=visibility),
        stream=record.stream,
        ignored=unknown,
        keep_alive=PING,
        ttl_s=params.ttl,
        answer=BlockAnswer,
    )


@dataclass(slots=True)
class CountCall:
    """A question for the tokens of a prompt, ready to be asked."""

    request: GenerateRequest
    record: RequestRecord
    ignored: list[str]

    async def answer(self) -> bytes:
        """``{"input_tokens": N}``, by the model's own template, with tools and system."""
        tokens = await get_engine().count(self.record.model_asked, self.request, self.record)
        return orjson.dumps({"input_tokens": tokens})


def count_call(body: bytes, principal: Principal, *, strict: bool = False) -> CountCall:
    """A count. Parameters of messages that no prompt depends on are known too."""
    params = validate(CountRequest, parse_object(body))
    no_effect = NO_EFFECT | (MessageRequest.model_fields.keys() - CountRequest.model_fields.keys())
    unknown = ignored(params, strict=strict, refused=REFUSED, no_effect=no_effect)
    record = new_record("anthropic", "count_", params.model, principal, COUNT_PATH)
    request = with_prompt_defaults(generate_request(params), settings_for(params.model))
    return CountCall(request, record, unknown)
