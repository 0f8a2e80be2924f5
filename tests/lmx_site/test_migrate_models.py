"""What LM Studio's owner set for single models, carried over by ``lmx migrate lmstudio``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lmx_site.config import load_config
from tests.live.process import LiveServer
from tests.lmx_site.test_migrate import cells, done
from tests.lmx_site.test_migrate import file as file
from tests.lmx_site.test_migrate import studio as studio
from tests.lmx_site.test_migrate import user as user
from tests.material.studio import Studio
from tests.models_admin.site import ask

P = "llm.prediction."
ON, OFF = {"checked": True, "value": 0.75}, {"checked": False, "value": 0.9}
OPERATION: dict[str, Any] = {
    P + "temperature": 0.1,
    P + "topPSampling": ON,
    P + "minPSampling": OFF,
    P + "topKSampling": 40.0,
    P + "repeatPenalty": {"checked": True, "value": 1.1},
    P + "maxPredictedTokens": {"checked": True, "value": 500},
    P + "stopStrings": ["END", "# no comment"],
    P + "systemPrompt": "Line one: yes\n\n  - two # three\n'quoted' \"both\"\n",
    "ext.virtualModel.customField.qwen.qwen38b.enableThinking": False,
    "ext.virtualModel.customField.openai.gptOss20b.reasoningEffort": "low",
}
CARRIED = {
    "context": 64,
    "temperature": 0.1,
    "top_p": 0.75,
    "top_k": 40,
    "repetition_penalty": 1.1,
    "max_tokens": 500,
    "stop": ["END", "# no comment"],
    "system_prompt": OPERATION[P + "systemPrompt"],
    "enable_thinking": False,
    "chat_template_kwargs": {"reasoning_effort": "low"},
}


def kept(file: Path) -> dict[str, dict[str, Any]]:
    return load_config(file, {}).settings_of_models()


def test_settings_of_a_model_become_model_settings(studio: Studio, file: Path) -> None:
    studio.model("org/Chat-4bit")
    studio.defaults("org/Chat-4bit", load={"llm.load.contextLength": 64}, operation=OPERATION)
    said = done("--dry-run")
    assert ["context of org/Chat-4bit", "64", "model_settings: context", "write"] in cells(said)
    assert ["system_prompt of org/Chat-4bit", "47 characters", "model_settings: system_prompt", "write"] in cells(said)
    assert "Line one" not in said
    assert not file.exists()
    done()
    assert kept(file) == {"org/Chat-4bit": CARRIED}
    assert "There is nothing to write" in done()
    done("--undo")
    assert not file.exists()


def test_what_the_owner_wrote_and_its_comments_stay(studio: Studio, file: Path) -> None:
    studio.model("org/Chat-4bit")
    studio.defaults("org/Chat-4bit", operation={P + "temperature": 0.1, P + "topKSampling": 5})
    old = "model_settings:  # mine\n  ORG/chat-4bit:\n    temperature: 0.9  # warm\n# the rest\nlogging: {}\n"
    file.write_text(old)
    said = done()
    assert "org/Chat-4bit: temperature 0.1: config.yaml has model_settings: 0.9" in said
    assert kept(file) == {"ORG/chat-4bit": {"temperature": 0.9, "top_k": 5}}
    text = file.read_text()
    assert all(words in text for words in ("# mine", "# warm", "# the rest"))
    done("--undo")
    assert file.read_text() == old


def test_a_preset_counts_for_the_models_that_name_it_and_before_their_own(studio: Studio, file: Path) -> None:
    for name in ("org/One", "org/Two"):
        studio.model(name)
    studio.preset("writer", systemPrompt="secret words", temperature=0.5)
    studio.preset("nobodys", temperature=0.6)
    fields = [{"key": P + "temperature", "value": 0.1}, {"key": P + "topKSampling", "value": 3}]
    wanted = {"preset": "@local:Writer", "operation": {"fields": fields}}
    studio.write(".internal/user-concrete-model-default-config/org/One.json", wanted)
    studio.write(".internal/user-concrete-model-default-config/org/Two.json", {"preset": "@local:gone"})
    said = done()
    assert kept(file) == {"org/One": {"temperature": 0.5, "top_k": 3, "system_prompt": "secret words"}}
    assert "preset nobodys (temperature): no model has it by default" in said
    assert "org/Two: preset @local:gone: there is no such preset" in said
    assert "preset writer" not in said
    assert "secret" not in said


def test_models_by_their_files_and_by_lm_studios_names(studio: Studio, file: Path) -> None:
    for name in ("org/One", "org/Two"):
        studio.model(name)
    studio.index_of({"org/Two": "pub/two"})
    studio.defaults("org/One/model.safetensors", operation={P + "temperature": 0.1})
    studio.defaults("pub/two", operation={P + "temperature": 0.2})
    studio.defaults("org/Some-GGUF/some-Q4_K_M.gguf", operation={P + "temperature": 0.3})
    said = done()
    assert kept(file) == {"org/One": {"temperature": 0.1}, "org/Two": {"temperature": 0.2}}
    assert "org/Some-GGUF/some-Q4_K_M.gguf (temperature): there is no such model in MLX's format" in said


def test_what_cannot_be_carried_is_named_with_its_reason(studio: Studio, file: Path) -> None:
    studio.model("org/m")
    quantized = {"enabled": True, "bits": 8, "groupSize": 64, "quantizedStart": 0}
    load = {"llm.load.contextLength": 10**9, "llm.load.new": True, "llm.load.mlx.kvCacheQuantization": quantized}
    operation = {
        P + "temperature": "hot",
        P + "topKSampling": -5,
        P + "maxPredictedTokens": -1,
        P + "stopStrings": [1],
        P + "contextOverflowPolicy": "rollingWindow",
    }
    studio.defaults("org/m", load={**load, "llm.load.numParallelSessions": 4}, operation=operation)
    said = done()
    for line in (
        "org/m: contextLength: context is more than the",
        "org/m: new: there is no such setting",
        "org/m: mlx.kvCacheQuantization",
        "org/m: numParallelSessions 4: requests take memory for what they use",
        "org/m: temperature: temperature must be a number",
        "org/m: topKSampling: top_k must be from 0",
        "org/m: stopStrings: stop must be a text",
        "org/m: contextOverflowPolicy: there is no such setting",
    ):
        assert line in said, line
    assert "maxPredictedTokens" not in said
    assert "model_settings" not in (yaml.safe_load(file.read_text()) or {})


@pytest.mark.live
def test_they_hold_on_the_server_and_what_is_set_there_wins(
    studio: Studio, home: Path, start_server: Callable[..., LiveServer]
) -> None:
    studio.server(port=1234, networkInterface="127.0.0.1")
    studio.model("org/Chat-4bit")
    studio.defaults("org/Chat-4bit", load={"llm.load.contextLength": 64}, operation={P + "temperature": 0.1})
    done()
    server = start_server(home, LMX_MODELS__EXTRA_DIRECTORIES="null")
    where = "/admin/model/settings?model_id=chat"
    assert ask(server, where)[1]["configured"] == {"context": 64, "temperature": 0.1}
    assert ask(server, "/admin/model/load", {"model_id": "chat"})[1]["context"] == 64
    ask(server, "/admin/model/settings", {"model_id": "chat", "settings": {"temperature": 0.2}})
    assert ask(server, where)[1]["effective"]["temperature"] == 0.2
    assert server.stop() == 0
