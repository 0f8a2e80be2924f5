"""``JsonApi``: a ninja API whose every error is JSON in the shape of its protocol (the edge does that for 405).

Bodies are parsed by ``inference.protocols``, not by ninja: its schemas are slower per request and word errors in its
own way. The OpenAPI document is told of them, and of what is answered, by ``route``; see ``inference.api.openapi``.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from http.client import responses
from types import MappingProxyType
from typing import Any, cast

from django.core.exceptions import RequestDataTooBig
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from ninja import NinjaAPI
from ninja.errors import HttpError, ValidationError
from pydantic import BaseModel

from inference.api import openapi
from inference.api.deps import product_version, require
from inference.errors import BodyTooLarge, InternalError, InvalidRequest, LmxError, NotFound
from inference.principal import Scope
from inference.protocols.errors import error_response, spoken_path

log = logging.getLogger(__name__)

View = Callable[..., Awaitable[HttpResponseBase]]
Answers = Mapping[int, type[BaseModel] | tuple[type[BaseModel], ...]]


class JsonApi(NinjaAPI):
    """An API whose views are registered with ``route``. ``routes`` maps each path to its methods."""

    def __init__(self, *, prefix: str, title: str, description: str) -> None:
        name = "lmx-" + prefix.strip("/")
        super().__init__(title=title, description=description, urls_namespace=name)
        self.prefix = prefix
        self.routes: dict[str, list[str]] = {}
        self._shapes: dict[str, type[BaseModel]] = {}

    def route(
        self,
        methods: str,
        path: str,
        *,
        scope: Scope,
        operation_id: str,
        summary: str,
        tag: str,
        body: type[BaseModel] | None = None,
        optional_body: bool = False,
        answers: Answers = MappingProxyType({}),
        streams: type[BaseModel] | None = None,
        parameters: Iterable[dict[str, Any]] = (),
        refuses: Iterable[openapi.Refusals] = (),
        errors: tuple[str, ...] = ("Error",),
    ) -> Callable[[View], View]:
        """Serve ``methods`` (space-separated) on ``path``, with and without a trailing slash, for holders of ``scope``.

        With several methods each gets ``operation_id`` with the method appended, but the first. What follows ``tag`` is
        for the document alone: ``answers`` has the shape of each status's answer, or several shapes of which it has
        one, an empty tuple for none but a stream; ``streams`` is the shape of the data of a stream's events;
        ``parameters`` are those that the view's signature does not tell; ``refuses`` what it may refuse beyond what
        every route may; ``errors`` the shapes of its errors.
        """

        def register(view: View) -> View:
            extra = self._extra(answers, body, streams, errors, optional_body=optional_body)
            if body is None and "POST" in methods.split():
                extra["requestBody"] = openapi.NO_BODY
            for status, told in openapi.refusals(openapi.refused(refuses, body="requestBody" in extra), errors).items():
                also = extra["responses"].get(status)
                extra["responses"][status] = told if also is None else openapi.either(also, told)
            extra["parameters"] = [*parameters, *(openapi.URGENCY if scope == "inference" else ())]
            for position, method in enumerate(methods.split()):
                name = operation_id if position == 0 else f"{operation_id}_{method.lower()}"
                self.api_operation([method], path, operation_id=name, summary=summary, tags=[tag], openapi_extra=extra)(
                    _guarded(view, scope)
                )
            self.routes.setdefault(path, []).extend(methods.split())
            hidden = _guarded(view, scope)
            also_head = [*methods.split(), "HEAD"] if "GET" in methods.split() else methods.split()
            if "HEAD" in also_head:
                self.api_operation(["HEAD"], path, include_in_schema=False)(hidden)
            if "{path:" not in path:  # that takes the slash too
                self.api_operation(also_head, path + "/", include_in_schema=False)(_guarded(view, scope))
            return view

        return register

    def on_exception(self, request: HttpRequest, exc: Any) -> HttpResponse:
        return error_response(_as_lmx_error(exc), spoken_path(request.path_info, request.headers))

    def get_openapi_schema(self, *, path_prefix: str | None = None, path_params: Any = None) -> Any:
        """ninja's document with our shapes in its components, and how keys are sent."""
        document = super().get_openapi_schema(path_prefix=path_prefix, path_params=path_params)
        document["info"]["version"] = product_version()
        document["security"] = openapi.SECURITY
        for told in (told for item in document["paths"].values() for told in item.values()):
            # ninja gives each a 200, also one that is never answered
            told["responses"] = {status: one for status, one in told["responses"].items() if "headers" in one}
        components = document.setdefault("components", {})
        components |= openapi.COMPONENTS
        schemas = components.setdefault("schemas", {})
        schemas |= {"Error": openapi.OPENAI_ERROR, "AnthropicError": openapi.ANTHROPIC_ERROR}
        for name, model in self._shapes.items():
            # Parts are named after their whole: protocols have the same names for what is not the same.
            schema = model.model_json_schema(ref_template=f"{openapi.SCHEMAS}{name}.{{model}}")
            schemas.update({f"{name}.{part}": told for part, told in schema.pop("$defs", {}).items()})
            schemas[name] = schema
        return document

    def _extra(
        self,
        answers: Answers,
        body: type[BaseModel] | None,
        streams: type[BaseModel] | None,
        errors: tuple[str, ...],
        *,
        optional_body: bool,
    ) -> dict[str, Any]:
        extra: dict[str, Any] = {"responses": {}}
        for status, shape in answers.items():
            shapes = [self._reference(one) for one in (shape if isinstance(shape, tuple) else (shape,))]
            content: dict[str, Any] = {}
            if shapes:
                content[openapi.JSON] = {"schema": shapes[0] if len(shapes) == 1 else {"anyOf": shapes}}
            if streams is not None and status == 200:
                content[openapi.EVENTS] = openapi.events(self._reference(streams), errors)
            headers = ["x-request-id", *(["x-lmx-ignored"] if body is not None else [])]
            told = {"description": responses[status], "headers": openapi.header_references(headers)}
            extra["responses"][status] = {**told, "content": content} if content else told
        if body is not None:
            content = {openapi.JSON: {"schema": self._reference(body)}}
            extra["requestBody"] = {"required": not optional_body, "content": content}
        return extra

    def _reference(self, shape: type[BaseModel]) -> dict[str, str]:
        known = self._shapes.setdefault(shape.__name__, shape)
        assert known is shape, f"two shapes are called {shape.__name__}"
        return {"$ref": openapi.SCHEMAS + shape.__name__}


def json_response(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> HttpResponse:
    return HttpResponse(body, status=status, content_type="application/json", headers=headers)


def _guarded(view: View, scope: Scope) -> View:
    """A new function each time: ninja keeps notes on the function object it is given."""

    @functools.wraps(view)
    async def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        require(request, scope)
        return await view(request, *args, **kwargs)

    return guarded


def _as_lmx_error(error: Exception) -> LmxError:
    if isinstance(error, LmxError):
        return error
    if isinstance(error, RequestDataTooBig):
        return BodyTooLarge("the request body is larger than this server accepts")
    if isinstance(error, ValidationError):
        first = error.errors[0]
        name = str(first["loc"][-1])
        return InvalidRequest(f"{name}: {first['msg']}", param=name, code="invalid_value")
    if isinstance(error, Http404):
        return NotFound("there is nothing at this path")
    if isinstance(error, HttpError) and error.status_code < 500:
        refusal = InvalidRequest(error.message)
        refusal.status = error.status_code
        return refusal
    log.error("a view failed", exc_info=cast(BaseException, error))
    return InternalError("the server failed to answer; its log says why")
