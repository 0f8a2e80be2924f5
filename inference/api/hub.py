"""``/admin/hub/search``, ``/admin/hub/model``, ``/admin/model/fit``: what there is at the Hub, and whether it fits."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import orjson
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from pydantic import BaseModel, ConfigDict, Field

from inference.api import hub_answers as answers
from inference.api import openapi
from inference.api.admin import AdminBody, api
from inference.api.base import json_response
from inference.api.deps import finder
from inference.finding import MOST_RESULTS, ModelFormat, Query, Sort
from inference.protocols.jsonbody import parse_object
from inference.protocols.validation import validate

Amount = Annotated[int, Field(ge=0, le=1 << 60)]
Text = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]


class Asked(BaseModel):
    """What a query may have; a name we do not know is a mistake."""

    model_config = ConfigDict(extra="forbid")

    @classmethod
    def parameters(cls) -> list[dict[str, Any]]:
        """For the OpenAPI document."""
        told = cls.model_json_schema()
        required = told.get("required", ())
        return [openapi.parameter(name, one, required=name in required) for name, one in told["properties"].items()]


class SearchAsked(Asked):
    """A search; see ``inference.finding.Query``."""

    q: Text = ""
    author: Text = ""
    format: ModelFormat | Literal["any"] = "mlx"
    quantization: Annotated[str, Field(max_length=64)] = ""
    sort: Sort = "downloads"
    min_bytes: Amount = 0
    max_bytes: Amount = 0
    min_parameters: Amount = 0
    max_parameters: Amount = 0
    limit: Annotated[int, Field(ge=1, le=MOST_RESULTS)] = 20
    cursor: Annotated[str, Field(max_length=2048)] = ""

    def query(self) -> Query:
        told = self.model_dump(exclude={"q", "format"})
        return Query(text=self.q.strip(), format=None if self.format == "any" else self.format, **told)


@api.route(
    "GET",
    "/hub/search",
    scope="admin",
    operation_id="search_hub",
    summary="Search the Hub for models",
    tag="models",
    answers={200: answers.SearchAnswer},
    parameters=SearchAsked.parameters(),
    refuses=[openapi.ASK_HUB],
)
async def search_hub(request: HttpRequest) -> HttpResponseBase:
    return _json(await finder().search(validate(SearchAsked, request.GET.dict()).query()))


class ModelAsked(Asked):
    """A model of the Hub; ``revision`` "" is its newest."""

    model_id: Annotated[str, Field(min_length=1, max_length=512)]
    revision: Annotated[str, Field(max_length=128)] = ""


@api.route(
    "GET",
    "/hub/model",
    scope="admin",
    operation_id="get_hub_model",
    summary="A model of the Hub: card, files, variants, and whether it fits",
    tag="models",
    answers={200: answers.ModelAnswer},
    parameters=ModelAsked.parameters(),
    refuses=[openapi.ASK_HUB, openapi.NAMED],
)
async def get_hub_model(request: HttpRequest) -> HttpResponseBase:
    asked = validate(ModelAsked, request.GET.dict())
    return _json(await finder().view(asked.model_id, asked.revision or None))


class FitBody(AdminBody):
    """``model_id`` is any name of a model on disk, or ``org/name`` at the Hub; ``context`` in tokens."""

    model_id: str = Field(min_length=1, max_length=512)
    context: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None


@api.route(
    "POST",
    "/model/fit",
    scope="admin",
    operation_id="fit_model",
    summary="Whether a model on disk or at the Hub fits this machine",
    tag="models",
    body=FitBody,
    answers={200: answers.FitAnswer},
    refuses=[openapi.ASK_HUB, openapi.NAMED],
)
async def fit_model(request: HttpRequest) -> HttpResponseBase:
    wanted = validate(FitBody, parse_object(request.body))
    return _json(await finder().fit(wanted.model_id, wanted.context))


def _json(value: Any) -> HttpResponseBase:
    return json_response(orjson.dumps(value))
