"""``POST /v1/embeddings``: vectors of texts, as numbers or as base64 of little-endian 32-bit floats."""

from __future__ import annotations

import base64
import sys
from array import array
from dataclasses import dataclass
from typing import Any, Literal

import orjson
from pydantic import Field

from inference.engine import get_engine
from inference.ipc import Embedded
from inference.principal import Principal
from inference.protocols.jsonbody import parse_object
from inference.protocols.openai.params import ignored
from inference.protocols.openai.requests import Texts, several
from inference.protocols.validation import WireModel, refuse, validate
from inference.records import RequestRecord, new_record

EMBEDDINGS_PATH = "/v1/embeddings"
MAX_INPUTS = 2048
MAX_DIMENSIONS = 2**16

NO_EFFECT = frozenset({"user", "priority", "request_id", "service_tier", "safety_identifier"})
REFUSED: dict[str, tuple[Any, ...]] = {
    "add_special_tokens": (None, True),
    "embed_dtype": (None, "float32"),
    "endianness": (None, "native", "little"),
    "input_type": (None,),
    "instruction": (None,),
    "messages": (None,),
    "normalize": (None, True),
    "prompt_name": (None,),
    "truncate": (None, False),
    "truncate_prompt_tokens": (None,),
}


class EmbeddingRequest(WireModel):
    """``input`` is a text, a list of token ids, or a list of either; none of them empty."""

    model: str | None = Field(
        None, max_length=512, description="Name, alias or unambiguous short name; empty: the default model."
    )
    input: Texts
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(None, ge=1, le=MAX_DIMENSIONS, description="Length of the vectors, at most theirs.")


@dataclass(frozen=True, slots=True)
class EmbeddingCall:
    """One parsed request, ready to be answered."""

    inputs: list[str | list[int]]
    dimensions: int | None
    as_base64: bool
    record: RequestRecord
    ignored: list[str]

    async def answer(self) -> bytes:
        """The whole body. Raises ``LmxError``; a caller that is cancelled leaves nothing behind."""
        asked = self.record.model_asked
        found = await get_engine().embed(asked, self.inputs, self.dimensions, self.record)
        return self._body(found, asked or self.record.model)

    def _body(self, found: Embedded, model: str) -> bytes:
        data = [
            {"object": "embedding", "index": index, "embedding": _base64(vector) if self.as_base64 else vector}
            for index, vector in enumerate(found.vectors)
        ]
        usage = {"prompt_tokens": found.prompt_tokens, "total_tokens": found.prompt_tokens}
        return orjson.dumps({"object": "list", "data": data, "model": model, "usage": usage})


def embedding_call(
    body: bytes, principal: Principal, *, endpoint: str = EMBEDDINGS_PATH, strict: bool = False
) -> EmbeddingCall:
    """What to embed. ``InvalidRequest`` names the parameter at fault; ``strict`` refuses unknown ones."""
    params = validate(EmbeddingRequest, parse_object(body))
    unknown = ignored(params, strict=strict, refused=REFUSED, no_effect=NO_EFFECT)
    inputs = several(params.input, "input", most=MAX_INPUTS)
    for position, one in enumerate(inputs):
        if not one:
            raise refuse("input" if isinstance(params.input, str) else f"input[{position}]", "must not be empty")
    record = new_record("openai", "embd-", params.model, principal, endpoint)
    return EmbeddingCall(inputs, params.dimensions, params.encoding_format == "base64", record, unknown)


def _base64(vector: list[float]) -> str:
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode("ascii")
