"""What the owner keeps for one model, and who keeps it. ``models_admin`` implements ``SettingsKeeper``.

What may be set, and within which bounds, is in ``inference.model_settings_fields``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Protocol

Never = Literal["never"]
Values = Mapping[str, Any]
"""Settings by name, as they stand in JSON; what is not in it is not set."""


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """The settings of one model that hold now; None is what was not set.

    ``context`` in tokens, ``ttl`` in idle seconds, ``prefix_cache_mb`` in MiB of memory. ``top_k`` 0 is off.
    """

    aliases: tuple[str, ...] = ()
    pinned: bool | None = None
    context: int | None = None
    slots: int | None = None
    ttl: float | Never | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] | None = None
    system_prompt: str | None = None
    enable_thinking: bool | None = None
    chat_template_kwargs: Mapping[str, Any] | None = None
    tool_parser: str | None = None
    reasoning_parser: str | None = None
    prefix_cache_mb: int | None = None


NO_SETTINGS = ModelSettings()
_NAMES = frozenset(one.name for one in fields(ModelSettings))


def settings_of(values: Values) -> ModelSettings:
    """The settings that ``values`` say; names that this version does not know are left out."""
    known = {name: value for name, value in values.items() if name in _NAMES and value is not None}
    fitting: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in known.items()
    }
    return ModelSettings(**fitting)


@dataclass(frozen=True, slots=True)
class SettingsView:
    """What is kept for a model. ``stored`` was set here, ``configured`` stands in config.yaml and is the baseline.

    ``identity`` is what they belong to: the repository, with the variant where there is one, whatever the revision.
    ``fields`` describes what can be set, for programs that make a form of it. ``effective`` has a value for every
    field, from here, from config.yaml or the default. ``present`` says that a model of that identity is known.
    """

    model_id: str
    identity: str
    stored: Values
    configured: Values
    effective: Values
    fields: tuple[Mapping[str, Any], ...]
    present: bool = True
    changed: tuple[str, ...] = field(default=())


class SettingsKeeper(Protocol):
    """All methods belong to the server's event loop."""

    def show(self, model_id: str) -> SettingsView:
        """What is kept for the model of that name. Raises ``ModelNotFound``."""
        ...

    async def change(self, model_id: str, changes: Values) -> SettingsView:
        """Set what ``changes`` names and put back what it has None for: all of it or nothing, on disk on return.

        It holds for whatever is asked from then on. Raises ``ModelNotFound``, and ``InvalidRequest`` whose ``param``
        is ``settings.NAME`` of the first at fault (``details["problems"]`` has a sentence for each).
        """
        ...
