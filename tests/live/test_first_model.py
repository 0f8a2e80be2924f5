"""The main job: a machine without models starts the server, and the official client streams an answer of SmolLM2."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.live.process import until
from tests.live.real import admin, real_server, sdk
from tests.worker.backends.real import smollm2

pytestmark = [pytest.mark.live, pytest.mark.slow]


def test_from_an_empty_home_to_a_streamed_answer(tmp_path: Path) -> None:
    brought = smollm2()  # skips where there is no network; what was downloaded for other tests is taken from there
    home = next(parent for parent in brought.parents if (parent / "cache").is_dir())
    with real_server(tmp_path, LMX_MODELS__DEMO="true", LMX_DEMO_CACHE=str(home / "cache" / "demo")) as server:
        assert "No model yet: bringing SmolLM2" in server.stdout
        until(lambda: "is ready. Ask it" in server.stdout, "the first model", patience_s=300)
        [model] = admin(server, "models/list")["models"]
        assert (model["model_id"], model["disk_state"]) == ("HuggingFaceTB/SmolLM2-135M-Instruct", "verified")
        with sdk(server) as client:
            stream = client.chat.completions.create(
                model="default",
                messages=[{"role": "user", "content": "What is the capital of France?"}],
                temperature=0,
                max_tokens=24,
                stream=True,
            )
            pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
            told = client.chat.completions.create(
                model="default",
                messages=[{"role": "user", "content": "Give me the capital of France as a JSON object."}],
                temperature=0,
                max_tokens=60,
                response_format={"type": "json_object"},
            ).choices[0]
        assert "Paris" in "".join(pieces)
        assert len([piece for piece in pieces if piece]) > 3
        assert told.finish_reason == "length" or isinstance(json.loads(told.message.content or ""), dict)
        assert (told.message.content or "").startswith("{")
        for start in ("curl ", "python3 "):
            line = next(line for line in server.stdout.splitlines() if line.startswith(start))
            said = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120, check=True).stdout
            text = json.loads(said)["choices"][0]["message"]["content"] if start == "curl " else said
            assert "hello" in text.lower()
