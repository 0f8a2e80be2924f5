"""Clients that were set up for LM Studio, against the real server and models in LM Studio's folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from click.testing import CliRunner

from lmx_site.cli import main
from tests.live.process import LiveServer
from tests.material.studio import Studio

pytestmark = pytest.mark.live


def test_they_go_on_under_the_names_that_they_know(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, start_server: Callable[..., LiveServer]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    studio = Studio(tmp_path)
    studio.settings(downloadsFolder=str(tmp_path / "big"))
    studio.model("lmstudio-community/Qwen2.5-7B-Instruct-MLX-4bit", tmp_path / "big")
    studio.model("mlx-community/Other-8bit")
    studio.index_of({"mlx-community/Other-8bit": "publisher/other"})
    server = start_server(home, LMX_MODELS__EXTRA_DIRECTORIES="null")
    ids = {
        "qwen2.5-7b-instruct-mlx": "lmstudio-community/Qwen2.5-7B-Instruct-MLX-4bit",
        "publisher/other": "mlx-community/Other-8bit",
        "other@f32": "mlx-community/Other-8bit",
    }
    with httpx2.Client(base_url=server.url, timeout=60, trust_env=False) as client:
        for name, found in ids.items():
            body = {"model": name, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
            answer = client.post("/v1/chat/completions", json=body)
            assert answer.status_code == 200, answer.text
            assert answer.json()["model"] == name
            assert client.get(f"/v1/models/{name}").json()["root"] == found
        loaded = client.post("/api/v1/models/load", json={"model": "publisher/other"})
        assert loaded.json()["instance_id"] == "mlx-community/Other-8bit"
        listed = client.get("/admin/models/list").json()["models"]
        assert {model["model_id"]: model["aliases"] for model in listed} == {
            "lmstudio-community/Qwen2.5-7B-Instruct-MLX-4bit": [
                "qwen2.5-7b-instruct-mlx",
                "qwen2.5-7b-instruct-mlx@f32",
            ],
            "mlx-community/Other-8bit": ["publisher/other"],
        }
    studio.server(port=server.port, networkInterface="127.0.0.1", autoStartOnLaunch=False)
    (home / "config.yaml").write_text(
        f"server: {{port: {server.port}}}\nmodels:\n  idle_unload_sec: 1800\n"
        "  aliases: {publisher/other: mlx-community/Other-8bit}\n"
    )
    said = CliRunner().invoke(main, ["migrate", "lmstudio", "--cut-over"]).stdout
    assert f"Port {server.port}: this server has it." in said
    assert "autoStartOnLaunch" not in said
    for name in ("qwen2.5-7b-instruct-mlx@f32", "publisher/other"):
        assert f"  {name}: " in said
    assert "does not answer" not in said
    assert server.stop() == 0
