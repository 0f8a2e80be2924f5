"""``model_settings`` of config.yaml."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmx_site.config import ConfigError, load_config


def problems(file: Path, text: str) -> list[str]:
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(file, {})
    return [problem.removeprefix(str(file)) for problem in caught.value.problems]


def test_what_is_set_is_known_by_the_models_names(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        "model_settings:\n  org/One-4bit: {context: 4096, ttl: never, stop: [a], temperature: 1, pinned: null}\n"
        "  two:\n"
        "    system_prompt: Be brief.\n    chat_template_kwargs: {a: [1]}\n"
    )
    config = load_config(file, {})
    assert config.settings_of_models() == {
        "org/One-4bit": {"context": 4096, "ttl": "never", "stop": ["a"], "temperature": 1.0},
        "two": {"system_prompt": "Be brief.", "chat_template_kwargs": {"a": [1]}},
    }
    assert config.model_standards() == {"slots": 64, "ttl": None, "prefix_cache_mb": None}


@pytest.mark.parametrize("text", ["", "model_settings:\n", "model_settings: {}\n", "model_settings: {a: {}}\n"])
def test_nothing_is_nothing(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    assert [one for one in load_config(file, {}).settings_of_models().values() if one] == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{a: {temperature: 3}}", ":1: model_settings.a.temperature must be from 0 to 2"),
        (
            "{a: {temprature: 1}}",
            ":1: model_settings.a.temprature is not a key; did you mean model_settings.a.temperature?",
        ),
        ("{a: {kv_bits: 4}}", ":1: model_settings.a.kv_bits is not supported: "),
        ("{a: {aliases: [b]}}", ":1: model_settings.a.aliases is not a key"),
        ("{a: {stop: ['']}}", ":1: model_settings.a.stop must not have an empty text"),
        ("{a: 5}", ":1: model_settings.a must hold keys such as "),
        ("5", ":1: model_settings must hold keys such as "),
        ("{' ': {slots: 1}}", ":1: model_settings. "),
    ],
)
def test_mistakes_are_named_with_their_place(tmp_path: Path, text: str, sentence: str) -> None:
    (problem,) = problems(tmp_path / "config.yaml", f"model_settings: {text}\n")
    assert problem.startswith(sentence)
