"""What the API is given by the site: catalog, events, strictness, version; and who is asking.

``configure`` is called by the runtime when it starts, and without arguments when it stops.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from typing import Any, Protocol, TypeVar

from django.http import HttpRequest

from inference.catalog import Catalog
from inference.errors import Forbidden, ModelUnavailable, Unauthorized
from inference.fetching import Fetcher
from inference.finding import Finder
from inference.keeping import Converter, Updater
from inference.model_settings import SettingsKeeper
from inference.models_on_disk import Keeper
from inference.principal import Principal, Scope
from inference.protocols.responses.background import Responses

Part = TypeVar("Part")


class EventFrame(Protocol):
    """One entry of a log topic, or a ``gap``: entries up to ``seq`` are lost. ``payload`` is the entry."""

    @property
    def kind(self) -> str: ...

    @property
    def payload(self) -> Any: ...

    @property
    def seq(self) -> int | None: ...


class EventSubscription(Protocol):
    """Batches of frames, never empty, until ``close()``. Waiting may be cancelled without losing a frame."""

    def __aiter__(self) -> AsyncIterator[Sequence[EventFrame]]: ...

    async def __anext__(self) -> Sequence[EventFrame]: ...

    def close(self) -> None: ...


class EventSource(Protocol):
    """The hub, as far as the API needs it."""

    def subscribe(self, topics: Iterable[str], since: int | None = None) -> EventSubscription: ...


class AuditSource(Protocol):
    """The audit log. ``wanted`` has any of ``who``, ``action``, ``model``, ``outcome``, ``via``, ``since``, ``until``
    (epoch seconds) and ``before`` (an entry's ``id``)."""

    async def entries(self, limit: int, **wanted: Any) -> list[dict[str, Any]]:
        """At most ``limit`` entries, the newest first."""
        ...

    def pages(self, **wanted: Any) -> AsyncIterator[list[dict[str, Any]]]:
        """All entries, the newest first, in parts."""
        ...


@dataclass(frozen=True, slots=True)
class Services:
    """``strict`` refuses unknown parameters; ``since`` is the wall-clock time of the start."""

    catalog: Catalog | None = None
    events: EventSource | None = None
    strict: bool = False
    version: str = ""
    since: float = field(default_factory=time.time)
    responses: Responses = field(default_factory=Responses)
    fetcher: Fetcher | None = None
    keeper: Keeper | None = None
    audit: AuditSource | None = None
    settings: SettingsKeeper | None = None
    finder: Finder | None = None
    updater: Updater | None = None
    converter: Converter | None = None


_services = Services()


def configure(
    *,
    catalog: Catalog | None = None,
    events: EventSource | None = None,
    strict: bool = False,
    version: str = "",
    responses: Responses | None = None,
    fetcher: Fetcher | None = None,
    keeper: Keeper | None = None,
    audit: AuditSource | None = None,
    settings: SettingsKeeper | None = None,
    finder: Finder | None = None,
    updater: Updater | None = None,
    converter: Converter | None = None,
) -> None:
    """Give the API what it works with; ``version`` is the product's. Without ``responses`` they live in memory."""
    global _services
    found = responses or Responses()
    named = version or _installed_version()
    _services = Services(
        catalog,
        events,
        strict,
        named,
        responses=found,
        fetcher=fetcher,
        keeper=keeper,
        audit=audit,
        settings=settings,
        finder=finder,
        updater=updater,
        converter=converter,
    )


def services() -> Services:
    return _services


def _given(part: Part | None) -> Part:
    if part is None:
        raise ModelUnavailable("the server is starting or stopping", retry_after=1)
    return part


def catalog() -> Catalog:
    """The catalog; 503 while the server starts or stops."""
    return _given(_services.catalog)


def responses() -> Responses:
    """Responses that are stored or run in the background."""
    return _services.responses


def fetcher() -> Fetcher:
    """Who fetches models and knows the jobs; 503 while the server starts or stops."""
    return _given(_services.fetcher)


def keeper() -> Keeper:
    """Who keeps the models on disk in order; 503 while the server starts or stops."""
    return _given(_services.keeper)


def audit() -> AuditSource:
    """The audit log; 503 while the server starts or stops."""
    return _given(_services.audit)


def model_settings() -> SettingsKeeper:
    """Who keeps the settings of models; 503 while the server starts or stops."""
    return _given(_services.settings)


def finder() -> Finder:
    """Who asks the Hub what there is; 503 while the server starts or stops."""
    return _given(_services.finder)


def updater() -> Updater:
    """Who keeps models up to date; 503 while the server starts or stops."""
    return _given(_services.updater)


def converter() -> Converter:
    """Who converts models; 503 while the server starts or stops."""
    return _given(_services.converter)


def event_source() -> EventSource:
    """The hub; 503 while the server starts or stops."""
    return _given(_services.events)


def principal(request: HttpRequest) -> Principal:
    """Who the edge found to be asking; a request that passed no edge has no rights."""
    found = getattr(request, "principal", None)
    if not isinstance(found, Principal):
        raise Unauthorized("this request was not authorised")
    return found


def require(request: HttpRequest, scope: Scope) -> None:
    """Raise the refusal of a request whose principal may not do what ``scope`` covers."""
    asker = principal(request)
    if asker.may(scope):
        return
    if asker.kind == "anonymous":
        raise Unauthorized(f"a key with the {scope} scope is needed")
    raise Forbidden(f"this key has no {scope} scope", code="admin_key_required" if scope == "admin" else None)


def product_version() -> str:
    return _services.version or _installed_version()


def _installed_version() -> str:
    try:
        return installed("opta-lmx")
    except PackageNotFoundError:  # a checkout that was never installed
        return "0.0.0+checkout"
