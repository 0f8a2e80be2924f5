"""The material itself: the same everywhere, loadable, never ending by itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from models_admin.facts import read_facts
from models_admin.manifest import sha256_file
from tests.material import EOS_TOKEN_ID, broken_models, nano_model, tiny_model

ROOT = Path(__file__).resolve().parents[2]
RUN = """
import sys
import mlx.core as mx
from mlx_lm import load, stream_generate
mx.set_default_device(mx.cpu)
for path in sys.argv[1:]:
    model, tokenizer = load(path)
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "hello"}], add_generation_prompt=True)
    tokens = [part.token for part in stream_generate(model, tokenizer, prompt, max_tokens=50)]
    assert len(tokens) == 50 and min(tokens) > %d, tokens
    assert tokenizer.eos_token_ids == {%d}
    text = "Any text: na\\u00efve \\u65e5\\u672c \\U0001f98a\\n\\t{}[]\\x00"
    assert tokenizer.decode(tokenizer.encode(text)) == text
"""


def test_random_models_load_and_run_to_max_tokens() -> None:
    code = RUN % (EOS_TOKEN_ID, EOS_TOKEN_ID)
    command = [sys.executable, "-c", code, str(tiny_model()), str(nano_model())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_making_again_gives_the_same_bytes(tmp_path: Path) -> None:
    again = tmp_path / "again"
    subprocess.run([sys.executable, "-m", "tests.material.make", "nano", str(again)], cwd=ROOT, check=True, timeout=120)
    for file in nano_model().iterdir():
        assert sha256_file(file) == sha256_file(again / file.name), file.name


def test_the_makers_import_no_mlx_into_the_tests_process() -> None:
    code = "import sys; from tests.material import nano_model; nano_model(); sys.exit('mlx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=120, check=False).returncode == 0


def test_facts_of_good_and_broken(tmp_path: Path) -> None:
    assert read_facts(tiny_model(), tiny_model().parent).problem is None
    assert set(broken_models(tmp_path)) == {
        "missing", "empty", "truncated", "unknown-architecture", "bad-config", "nan-weights", "missing-weight-file",
    }  # fmt: skip
