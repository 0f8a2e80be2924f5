"""``JsonApi``: a ninja API whose every error is JSON in the shape of its protocol (the edge does that for 405).

Bodies are parsed by ``inference.protocols``, not by ninja: its schemas are slower per request and word errors in its
own way. They are described to the OpenAPI document by ``openapi_extra`` instead.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Any, cast

from django.core.exceptions import RequestDataTooBig
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from ninja import NinjaAPI
from ninja.errors import HttpError, ValidationError
from pydantic import BaseModel

from inference.api.deps import product_version, require
from inference.errors import BodyTooLarge, InternalError, InvalidRequest, LmxError, NotFound
from inference.principal import Scope
from inference.protocols.errors import error_response, spoken_path

log = logging.getLogger(__name__)

View = Callable[..., Awaitable[HttpResponseBase]]
_SCHEMAS = "#/components/schemas/"

_ERROR_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


class JsonApi(NinjaAPI):
    """An API whose views are registered with ``route``. ``routes`` maps each path to its methods."""

    def __init__(self, *, prefix: str, title: str, description: str) -> None:
        name = "lmx-" + prefix.strip("/")
        super().__init__(title=title, description=description, urls_namespace=name)
        self.prefix = prefix
        self.routes: dict[str, list[str]] = {}
        self._bodies: dict[str, type[BaseModel]] = {}

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
        streams: bool = False,
    ) -> Callable[[View], View]:
        """Serve ``methods`` (space-separated) on ``path``, with and without a trailing slash, for holders of ``scope``.

        With several methods each gets ``operation_id`` with the method appended, but the first.
        """

        def register(view: View) -> View:
            extra = self._extra(body, streams)
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
        """ninja's document with our body schemas and the error shape in its components."""
        document = super().get_openapi_schema(path_prefix=path_prefix, path_params=path_params)
        document["info"]["version"] = product_version()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas["Error"] = _ERROR_SCHEMA
        for name, model in self._bodies.items():
            # Parts are named after their body: protocols have the same names for what is not the same.
            schema = model.model_json_schema(ref_template=f"{_SCHEMAS}{name}.{{model}}")
            schemas.update({f"{name}.{part}": told for part, told in schema.pop("$defs", {}).items()})
            schemas[name] = schema
        return document

    def _extra(self, body: type[BaseModel] | None, streams: bool) -> dict[str, Any]:
        content: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
        if streams:
            content["text/event-stream"] = {"schema": {"type": "string"}}
        failure = {
            "description": "Refused or failed",
            "content": {"application/json": {"schema": {"$ref": _SCHEMAS + "Error"}}},
        }
        extra: dict[str, Any] = {
            "responses": {200: {"description": "OK", "content": content}, "4XX": failure, "5XX": failure}
        }
        if body is not None:
            self._bodies[body.__name__] = body
            reference = {"$ref": _SCHEMAS + body.__name__}
            extra["requestBody"] = {"required": True, "content": {"application/json": {"schema": reference}}}
        return extra


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
