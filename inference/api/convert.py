"""``/admin/model/convert``: GGUF to MLX, and models quantised."""

from __future__ import annotations

from typing import Any, Literal

import orjson
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from pydantic import Field

from inference.api import keep_answers as answers
from inference.api import openapi
from inference.api.admin import AdminBody, api
from inference.api.base import json_response
from inference.api.deps import converter
from inference.api.jobs import told
from inference.errors import InvalidRequest, from_code
from inference.keeping import Conversion, ConvertTo
from inference.protocols.jsonbody import parse_object
from inference.protocols.validation import validate


class ConvertTarget(AdminBody):
    """``bits`` may be left out for a GGUF file, which then keeps its own."""

    bits: Literal[3, 4, 6, 8] | None = None
    group_size: Literal[32, 64, 128] | None = None
    dtype: Literal["float16", "bfloat16", "float32"] | None = None


class ConvertBody(AdminBody):
    """A model by any of its names, or the ``path`` of a GGUF file on the server's disk. ``name`` is what it becomes."""

    model_id: str | None = Field(default=None, min_length=1, max_length=512)
    path: str | None = Field(default=None, min_length=1, max_length=4096)
    to: ConvertTarget = ConvertTarget()
    name: str | None = Field(default=None, min_length=1, max_length=96)
    wait: bool | None = None


@api.route(
    "POST",
    "/model/convert",
    scope="admin",
    operation_id="convert_model",
    summary="Quantise a model, or make an MLX model of a GGUF file, as a job",
    tag="models",
    body=ConvertBody,
    answers={200: answers.ConvertAnswer, 202: answers.ConvertAnswer},
    refuses=[openapi.CONVERT],
)
async def convert_model(request: HttpRequest) -> HttpResponseBase:
    wanted = validate(ConvertBody, parse_object(request.body))
    source = wanted.model_id or wanted.path
    if source is None or (wanted.model_id and wanted.path):
        raise InvalidRequest("name one model_id or one path", param="model_id")
    to = ConvertTo(wanted.to.bits, wanted.to.group_size, wanted.to.dtype)
    found = await converter().convert(source, to, name=wanted.name, is_path=wanted.path is not None)
    if wanted.wait:
        found = await converter().wait(found)
        if found.job.state in ("failed", "cancelled"):
            raise from_code(found.job.code, found.job.message, details={"job": found.job.job})
    return _json(found, 202 if found.job.state in ("queued", "running") else 200)


def _json(found: Conversion, status: int) -> HttpResponseBase:
    about: dict[str, Any] = {"model_id": found.model_id, "path": found.path, "origin": found.origin}
    return json_response(orjson.dumps(about | {"job": told(found.job)}), status)
