"""``SettingsBook``: what the owner keeps for each model, judged against it, stored, and in force at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from django.db import DatabaseError

from inference.catalog import ModelRef
from inference.errors import InternalError, InvalidRequest, ModelNotFound
from inference.model_settings import SettingsView, Values
from inference.model_settings_checks import UNSUPPORTED, SettingProblem, checked
from inference.model_settings_fields import FIELDS, NEVER, Field
from models_admin.catalog import DiskCatalog
from models_admin.settings_names import taken

_MOST = 2 * len(FIELDS)

Applied = Callable[[], Awaitable[None]]


async def _nobody() -> None:
    """There is nobody to tell."""


class SettingsBook:
    """Implements ``inference.model_settings.SettingsKeeper``.

    ``standard`` is what config.yaml says for all models of a setting (``slots``, ``ttl``, ``prefix_cache_mb``).
    ``applied`` is awaited after each change, so that it holds when its author hears of it.
    """

    def __init__(self, catalog: DiskCatalog, standard: Values | None = None, applied: Applied = _nobody) -> None:
        self._catalog = catalog
        self._standard = dict(standard or {})
        self._applied = applied
        self._tasks: set[asyncio.Task[None]] = set()

    def show(self, model_id: str) -> SettingsView:
        """See the protocol."""
        ref, identity = self._found(model_id)
        return self._view(ref, identity)

    async def change(self, model_id: str, changes: Values) -> SettingsView:
        """See the protocol."""
        ref, identity = self._found(model_id)
        wanted = _judged(ref, changes)
        before = self._catalog.settings.kept(identity).values
        # Once begun it is done, whether who asked for it is still there or not.
        task = asyncio.create_task(self._change(identity, wanted), name=f"settings of {identity}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.shield(task)
        after = self._catalog.settings.kept(identity).values
        changed = tuple(name for name in FIELDS if before.get(name) != after.get(name))
        return self._view(ref, identity, changed)

    async def _change(self, identity: str, wanted: Values) -> None:
        try:
            await self._catalog.change_settings(identity, partial(self._merged, identity, wanted))
        except DatabaseError as error:
            raise InternalError(f"the settings cannot be stored: {error}") from error
        await self._applied()

    def _merged(self, identity: str, wanted: Values, before: Values) -> dict[str, Any]:
        """In the catalog's thread: what is kept after the change. Raises ``InvalidRequest``."""
        catalog = self._catalog
        models = [(catalog.identity(ref), ref) for ref in catalog.all()] if wanted.get("aliases") else []
        for alias in wanted.get("aliases") or ():
            if (why := taken(alias, identity, models, catalog.aliases, catalog.settings.all())) is not None:
                raise _refusal({"aliases": f"cannot have {alias[:80]!r}, which {why}"})
        return {name: value for name, value in {**before, **wanted}.items() if value is not None}

    def _found(self, model_id: str) -> tuple[ModelRef | None, str]:
        """The model, and what its settings belong to; None where only settings are left of it."""
        try:
            ref = self._catalog.resolve(model_id)
        except ModelNotFound:
            kept = self._catalog.settings.kept(model_id.strip())
            if not kept.values:
                raise
            return None, kept.name
        return ref, self._catalog.identity(ref)

    def _view(self, ref: ModelRef | None, identity: str, changed: tuple[str, ...] = ()) -> SettingsView:
        kept = self._catalog.settings
        stored, configured = kept.kept(identity).values, kept.configured(identity)
        shown = [field for field in FIELDS.values() if ref is None or field.fits(ref.kind)]
        usual = {field.name: self._usual(field, ref) for field in shown}
        effective = usual | {name: value for name, value in {**configured, **stored}.items() if name in usual}
        fields = []
        for field in shown:
            described = field.described() | {"default": usual[field.name]}
            if field.name == "context" and ref is not None and ref.context_length:
                described["maximum"] = ref.context_length
            source = "model" if field.name in stored else "config" if field.name in configured else "default"
            fields.append(described | {"source": source})
        name = ref.id if ref is not None else identity
        return SettingsView(
            *(name, identity, stored, configured, effective, tuple(fields)), present=ref is not None, changed=changed
        )

    def _usual(self, field: Field, ref: ModelRef | None) -> Any:
        """What holds where nothing is said of this model; None where the model decides."""
        if field.name == "context":
            return (ref.context_length or None) if ref is not None else None
        value = self._standard.get(field.name, field.standard)
        if field.name == "ttl" and value is None:
            return NEVER
        return list(value) if isinstance(value, tuple) else value


def _judged(ref: ModelRef | None, changes: Values) -> dict[str, Any]:
    """The changes in the form in which they are kept, None for what is put back. Raises ``InvalidRequest``."""
    if len(changes) > _MOST:
        raise InvalidRequest(f"settings has {len(changes)} names; there are {len(FIELDS)} settings", param="settings")
    wanted: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for name, value in changes.items():
        try:
            if value is None and name not in FIELDS and name not in UNSUPPORTED:
                checked(name, value)
            wanted[name] = None if value is None else _fitting(ref, name, checked(name, value))
        except SettingProblem as problem:
            problems[name] = str(problem)
    if problems:
        raise _refusal(problems)
    return {name: value for name, value in wanted.items() if name in FIELDS}


def _fitting(ref: ModelRef | None, name: str, value: Any) -> Any:
    if ref is None:
        raise SettingProblem("cannot be set: there is no such model here any more; it can only be put back (null)")
    if not FIELDS[name].fits(ref.kind):
        raise SettingProblem("means nothing for an embedding model")
    if name == "context" and ref.context_length and value > ref.context_length:
        raise SettingProblem(f"must be at most {ref.context_length}, which is what {ref.id} has, not {value}")
    return value


def _refusal(problems: Mapping[str, str]) -> InvalidRequest:
    name, sentence = next(iter(problems.items()))
    shown = name[:80]
    code = "unsupported_parameter" if name in UNSUPPORTED else "invalid_value"
    told = {one[:80]: text for one, text in problems.items()}
    return InvalidRequest(f"{shown} {sentence}", param=f"settings.{shown}", code=code, details={"problems": told})
