"""What LM Studio's owner set for single models, and in presets, as ``model_settings`` of config.yaml.

A preset counts for the models whose settings name it, and there before what is set for the model, as in LM Studio.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inference.model_files import printable
from inference.model_settings_checks import SettingProblem, checked
from inference.model_settings_fields import FIELDS
from lmx_site.config_settings import SETTINGS
from lmx_site.config_yaml import KeyPath
from models_admin.row import Row

DEFAULTS = ".internal/user-concrete-model-default-config"
PRESETS = "config-presets"
PROMPT = "llm.prediction.systemPrompt"

_NAMES = {
    "llm.load.contextLength": "context",
    "llm.prediction.temperature": "temperature",
    "llm.prediction.topPSampling": "top_p",
    "llm.prediction.topKSampling": "top_k",
    "llm.prediction.minPSampling": "min_p",
    "llm.prediction.repeatPenalty": "repetition_penalty",
    "llm.prediction.presencePenalty": "presence_penalty",
    "llm.prediction.llama.presencePenalty": "presence_penalty",
    "llm.prediction.frequencyPenalty": "frequency_penalty",
    "llm.prediction.llama.frequencyPenalty": "frequency_penalty",
    "llm.prediction.maxPredictedTokens": "max_tokens",
    "llm.prediction.stopStrings": "stop",
    "llm.prediction.seed": "seed",
    "llm.prediction.reasoning.enableThinking": "enable_thinking",
    PROMPT: "system_prompt",
}
_SWITCH = re.compile(r"ext\.virtualModel\.customField\..{1,200}\.enableThinking")
_EFFORT = re.compile(r"ext\.virtualModel\.customField\..{1,200}\.reasoningEffort")
_LENGTH = "llm.prediction.maxPredictedTokens"
_FILE_ENDINGS = (".gguf", ".safetensors")

Fields = Mapping[str, Any]


@dataclass(slots=True)
class Found:
    """``put`` gets (model, setting, LM Studio's value, ours), ``leave`` (what, why) of what is not carried.

    ``fields`` reads a file: what it sets, by key, and the preset that it names. ``models`` are those in LM Studio's
    folders, by their repository in lower case, ``keys`` its names for them.
    """

    home: Path
    models: Mapping[str, Row]
    keys: Mapping[str, str]
    fields: Callable[[Path], tuple[dict[str, Any], str]]
    put: Callable[[str, str, Any], None]
    leave: Callable[[str, str], None]
    unknown: Callable[[str, str, Any], None]
    _presets: dict[str, tuple[str, Fields]] = field(default_factory=dict)
    _used: set[str] = field(default_factory=set)

    def read(self, defaults: Iterable[Path], presets: Iterable[Path]) -> None:
        for file in presets:
            name = printable(file.name.removesuffix(".preset.json"))
            self._presets[f"@local:{name}".lower()] = (name, self.fields(file)[0])
        root = self.home / DEFAULTS
        for file in defaults:
            self._model(printable(str(file.relative_to(root)).removesuffix(".json")), *self.fields(file))
        for identifier, (name, fields) in self._presets.items():
            if identifier not in self._used:
                held = ", ".join(short(key) for key in fields) or "empty"
                self.leave(f"preset {name} ({held})", "no model has it by default; 'lmx set MODEL' sets what it holds")

    def _model(self, name: str, fields: Fields, preset: str) -> None:
        row = self._meant(name)
        if preset:
            fields = {**fields, **self._preset(name, preset, known=row is not None)}
        if not fields:
            return
        if row is None:
            held = ", ".join(short(key) for key in fields)
            self.leave(f"{name} ({held})", "there is no such model in MLX's format in its folders")
            return
        settings: dict[str, Any] = {}
        for key, value in fields.items():
            if key == _LENGTH and value in (False, -1, 0):
                continue  # its words for no bound
            found = _ours(key, value)
            if found is None:
                self.unknown(name, key, value)
            elif found[0] not in settings:
                self._judge(row, name, key, found, settings)
        for setting, value in settings.items():
            self.put(row.found.repo, setting, value)

    def _judge(self, row: Row, name: str, key: str, found: tuple[str, Any], settings: dict[str, Any]) -> None:
        setting, value = found
        try:
            value = checked(setting, value)
            most = row.facts.context_length
            if not FIELDS[setting].fits(row.facts.kind):
                raise SettingProblem("means nothing for an embedding model")
            if setting == "context" and most and value > most:
                raise SettingProblem(f"is more than the {most} tokens that the model has")
        except SettingProblem as problem:
            self.leave(f"{name}: {short(key)}", f"{setting} {problem}")
        else:
            settings[setting] = value

    def _meant(self, name: str) -> Row | None:
        """The model of that publisher/repository, of a file in it, or of LM Studio's own name for it."""
        asked = name.lower()
        for candidate in (asked, asked.rpartition("/")[0] if asked.endswith(_FILE_ENDINGS) else ""):
            if (row := self.models.get(candidate) or self.models.get(self.keys.get(candidate, "").lower())) is not None:
                return row
        return None

    def _preset(self, name: str, preset: str, *, known: bool) -> Fields:
        identifier = printable(preset).lower()
        if identifier not in self._presets:
            self.leave(f"{name}: preset {printable(preset)}", "there is no such preset in its files")
            return {}
        if known:
            self._used.add(identifier)
        return self._presets[identifier][1]


def place(values: Mapping[str, Any], repo: str, setting: str) -> KeyPath:
    """Where it stands in config.yaml: under the name that the model has there already, if it has one."""
    there = values.get(SETTINGS)
    names = [name for name in there if str(name).lower() == repo.lower()] if isinstance(there, dict) else []
    return (SETTINGS, names[0] if names else repo, setting)


def short(key: str) -> str:
    """A key without what all of its kind begin with."""
    return key.removeprefix("llm.").removeprefix("load.").removeprefix("prediction.")


def _ours(key: str, value: Any) -> tuple[str, Any] | None:
    """The setting's name here and its value; None where there is none."""
    if _SWITCH.fullmatch(key):
        return "enable_thinking", value
    if _EFFORT.fullmatch(key):
        return "chat_template_kwargs", {"reasoning_effort": value}
    name = _NAMES.get(key)
    if name is None:
        return None
    # A slider of its may have written a whole number as 40.0.
    if isinstance(value, float) and value.is_integer() and FIELDS[name].kind == "integer":
        value = int(value)
    return name, value
