"""``POST /v1/tokenize`` and ``/v1/detokenize``, as vLLM has them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any

import orjson
from pydantic import Field

from inference.engine import get_engine
from inference.ipc import GenerateRequest
from inference.principal import Principal
from inference.protocols.jsonbody import parse_object
from inference.protocols.openai.messages import Message, normalised
from inference.protocols.openai.params import ignored, one_of
from inference.protocols.openai.reasoning import template_kwargs
from inference.protocols.openai.requests import TokenIds, continues
from inference.protocols.openai.tools import Tool, tool_list
from inference.protocols.owner import settings_for, with_prompt_defaults
from inference.protocols.validation import WireModel, refuse, validate
from inference.records import RequestRecord, new_record

TOKENIZE_PATH = "/v1/tokenize"
DETOKENIZE_PATH = "/v1/detokenize"

NO_EFFECT = frozenset({"user", "request_id"})
TOKENIZE_REFUSED: dict[str, tuple[Any, ...]] = {
    "chat_template": (None,),
    "mm_processor_kwargs": (None,),
    "with_pieces": (None, False),
}
DETOKENIZE_REFUSED: dict[str, tuple[Any, ...]] = {"skip_special_tokens": (None, False)}

_MODEL = Field(None, max_length=512, description="Name, alias or unambiguous short name; empty: the default model.")


class TokenizeRequest(WireModel):
    """Either a text or ``messages``, which become what the model's template makes of them."""

    model: str | None = _MODEL
    prompt: str | None = None
    text: str | None = Field(None, description="Another name of prompt.")
    content: str | None = Field(None, description="llama.cpp's name of prompt.")
    messages: Annotated[list[Message], Field(fail_fast=True, min_length=1)] | None = None
    tools: Annotated[list[Tool], Field(fail_fast=True)] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_special_tokens: bool | None = Field(None, description="Default true; of messages false.")
    return_token_strs: bool | None = Field(None, description="Also the text of each token.")


class DetokenizeRequest(WireModel):
    """The text of tokens, special ones too."""

    model: str | None = _MODEL
    tokens: TokenIds


@dataclass(frozen=True, slots=True)
class TokenCall:
    """One parsed request, ready to be answered. ``context`` tells the model's context by its id."""

    ask: Callable[[Callable[[str], int]], Awaitable[dict[str, Any]]]
    record: RequestRecord
    ignored: list[str]

    async def answer(self, context: Callable[[str], int]) -> bytes:
        """The whole body. ``context`` gives the most tokens of a model by its id. Raises ``LmxError``."""
        return orjson.dumps(await self.ask(context))


def tokenize_call(
    body: bytes, principal: Principal, *, endpoint: str = TOKENIZE_PATH, strict: bool = False
) -> TokenCall:
    """What to tokenise. ``InvalidRequest`` names the parameter at fault; ``strict`` refuses unknown ones."""
    params = validate(TokenizeRequest, parse_object(body))
    unknown = ignored(params, strict=strict, refused=TOKENIZE_REFUSED, no_effect=NO_EFFECT)
    request = _request(params)
    if isinstance(request, GenerateRequest):
        settings = settings_for(params.model)
        if not principal.may("admin"):  # the tokens would spell what its owner told the model in confidence
            settings = replace(settings, system_prompt=None)
        request = with_prompt_defaults(request, settings)
    record = new_record("openai", "tok-", params.model, principal, endpoint)
    special = params.messages is None and params.add_special_tokens is not False

    async def ask(context: Callable[[str], int]) -> dict[str, Any]:
        found = await get_engine().tokens(record.model_asked, request, special, record)
        tokens = found.token_ids
        return {
            "count": len(tokens),
            "max_model_len": context(record.model),
            "tokens": tokens,
            "token_strs": found.texts if params.return_token_strs else None,
        }

    return TokenCall(ask, record, unknown)


def detokenize_call(
    body: bytes, principal: Principal, *, endpoint: str = DETOKENIZE_PATH, strict: bool = False
) -> TokenCall:
    """What to make a text of. ``InvalidRequest`` names the parameter at fault; ``strict`` refuses unknown ones."""
    params = validate(DetokenizeRequest, parse_object(body))
    unknown = ignored(params, strict=strict, refused=DETOKENIZE_REFUSED, no_effect=NO_EFFECT)
    record = new_record("openai", "tok-", params.model, principal, endpoint)

    async def ask(context: Callable[[str], int]) -> dict[str, Any]:
        return {"prompt": await get_engine().detokenize(record.model_asked, params.tokens, record)}

    return TokenCall(ask, record, unknown)


def _request(params: TokenizeRequest) -> str | GenerateRequest:
    """The text, or a chat request of which only the prompt counts."""
    named = {"prompt": params.prompt, "text": params.text, "content": params.content}
    given = one_of(named, "one text")
    if params.messages is None:
        if given is None:
            raise refuse("prompt", "is required, or messages", code="missing_required_parameter")
        for name in ("tools", "continue_final_message", "add_generation_prompt", "chat_template_kwargs"):
            if getattr(params, name):
                raise refuse(name, "needs messages")
        return str(given[1])
    if given is not None:
        raise refuse(given[0], "and messages cannot both be given")
    if params.add_special_tokens:
        raise refuse("add_special_tokens", "cannot be true with messages: the model's template writes them")
    messages = normalised(params.messages)
    return GenerateRequest(
        messages=messages,
        tools=tool_list(params.tools),
        template_kwargs=template_kwargs(params.chat_template_kwargs),
        continue_final=continues(params.continue_final_message, params.add_generation_prompt, messages),
    )
