"""Routes of ``/v1``, ``/admin`` and ``/api``, and JSON answers for everything else below them."""

from __future__ import annotations

from difflib import get_close_matches

from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, URLResolver, path, re_path
from django.views.decorators.csrf import csrf_exempt

from inference.api import admin, lmstudio, v1
from inference.api import anthropic as _anthropic  # noqa: F401 - registers its routes with v1
from inference.api import audit as _audit  # noqa: F401 - registers its routes with admin
from inference.api import convert as _convert  # noqa: F401 - registers its routes with admin
from inference.api import hub as _hub  # noqa: F401 - registers its routes with admin
from inference.api import jobs as _jobs  # noqa: F401 - registers its routes with admin
from inference.api import model_settings as _model_settings  # noqa: F401 - registers its routes with admin
from inference.api import models_list as _models_list  # noqa: F401 - registers its routes with admin
from inference.api import models_on_disk as _models_on_disk  # noqa: F401 - registers its routes with admin
from inference.api import responses as _responses  # noqa: F401 - registers its routes with v1
from inference.api import updates as _updates  # noqa: F401 - registers its routes with admin
from inference.errors import NotFound
from inference.protocols.errors import error_response
from inference.protocols.lmstudio import SDK_PATHS

_KNOWN = [
    api.prefix.rstrip("/") + route
    for api in (v1.api, admin.api, lmstudio.api)
    for route in api.routes
    if "{" not in route
]


@csrf_exempt
async def unknown(request: HttpRequest) -> HttpResponse:
    """A JSON 404 that names the nearest route."""
    asked = request.path_info[:200]
    near = get_close_matches(asked.rstrip("/"), _KNOWN, n=1, cutoff=0.75)
    hint = f"; did you mean {near[0]}?" if near else ""
    return error_response(NotFound(f"there is no {request.method} {asked}{hint}", code="unknown_url"), asked)


urlpatterns: list[URLPattern | URLResolver] = [
    path("v1/", v1.api.urls),
    path("admin/", admin.api.urls),
    path("api/", lmstudio.api.urls),
    *(path(name, lmstudio.sdk) for name in SDK_PATHS),
    re_path(r"^(?:v1|admin|api)(?:/.*)?$", unknown),
]
