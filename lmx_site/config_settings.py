"""``model_settings`` of config.yaml: what holds for single models before anybody set anything else for them."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from pydantic import AfterValidator, create_model
from pydantic_core import PydanticCustomError

from inference.model_settings_checks import UNSUPPORTED, SettingProblem, checked
from inference.model_settings_fields import FIELDS
from lmx_site.config_model import Section

SETTINGS = "model_settings"


def _checked(name: str, value: Any) -> Any:
    try:
        return None if value is None else checked(name, value)
    except SettingProblem as problem:
        raise PydanticCustomError("refused", str(problem).replace("{", "{{").replace("}", "}}")) from None


# Aliases have a place of their own in the file: models.aliases.
NAMES = [name for name in (*FIELDS, *UNSUPPORTED) if name != "aliases"]
_SHAPE: dict[str, Any] = {name: (Annotated[Any, AfterValidator(partial(_checked, name))], None) for name in NAMES}
ModelValues: type[Section] = create_model("ModelValues", __base__=Section, **_SHAPE)
"""The settings of one model; what is null or left out is not set."""


def values_of(told: Section) -> dict[str, Any]:
    """What is set, by name."""
    return {name: value for name, value in told.model_dump().items() if value is not None}
