"""What is told of a model beside its sizes: parameters, capabilities, licence, template, files in folders."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from safetensors import safe_open

from inference.model_files import read_weights
from models_admin.about import licence, parameters, read_template
from models_admin.facts import MAX_DEPTH, list_files, read_facts
from models_admin.manifest import FileEntry, Manifest, sha256_file, write_manifest
from models_admin.row import examine
from models_admin.scan import scan
from models_admin.verify_worker import list_names
from tests.material import encoder_model, nano_model

WEIGHTS = "model.safetensors"


@pytest.fixture
def nano(tmp_path: Path) -> Path:
    return Path(shutil.copytree(nano_model(), tmp_path / "nano"))


def elements(model: Path) -> int:
    with safe_open(model / WEIGHTS, "numpy") as weights:
        return sum(weights.get_tensor(name).size for name in weights.keys())  # noqa: SIM118 - it is no mapping


def settle(model: Path, **changes: Any) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | changes))


def test_parameters_are_counted_as_they_were_before_they_were_packed(nano: Path) -> None:
    count = elements(nano)
    assert read_facts(nano, nano.parent).parameters == count > 0
    plain, packed = mx.load(str(nano / WEIGHTS)), dict[str, mx.array]()
    assert isinstance(plain, dict)
    widths = dict[str, int]()
    for number, (name, weight) in enumerate(plain.items()):
        if weight.ndim != 2 or weight.shape[-1] % 32:
            packed[name] = weight
            continue
        stem = name.removesuffix(".weight")
        widths[stem] = (3, 4, 8)[number % 3]
        values, scales, biases = mx.quantize(weight, group_size=32, bits=widths[stem])
        packed |= {name: values, f"{stem}.scales": scales, f"{stem}.biases": biases}
    assert widths
    mx.save_safetensors(str(nano / WEIGHTS), packed)
    own = {stem: {"group_size": 32, "bits": bits} for stem, bits in widths.items()}
    settle(nano, quantization={"group_size": 32, "bits": 4, **own})
    facts = read_facts(nano, nano.parent)
    assert facts.parameters == count
    assert facts.weight_bytes < count * 4


@pytest.mark.parametrize("packing", [None, 7, {"bits": 0}, {"bits": True}, {"bits": 10**9}, {"model": 3}])
def test_no_packing_breaks_the_count(nano: Path, packing: object) -> None:
    headers = read_weights(nano, {WEIGHTS})
    assert parameters(headers, {"quantization": packing}) == elements(nano)


def test_capabilities_are_those_that_the_files_tell(nano: Path) -> None:
    def told() -> tuple[str, ...]:
        return read_facts(nano, nano.parent).capabilities

    config = json.loads((nano / "tokenizer_config.json").read_text())
    for template, expected in (
        (None, ("completion",)),
        ("{{ messages }}", ("chat", "completion")),
        ("{% if tools %}{{ tools }}{% endif %}", ("chat", "completion", "tools")),
        ("{{ '</think>' }}{{ tools }}", ("chat", "completion", "tools", "reasoning")),
        ([{"name": "default", "template": "{{ tools }}"}], ("chat", "completion", "tools")),
    ):
        (nano / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": template}))
        assert told() == expected
    marker = {"added_tokens_decoder": {"7": {"content": "</think>"}, "8": "x"}, "chat_template": "{{ messages }}"}
    (nano / "tokenizer_config.json").write_text(json.dumps(marker))
    assert told() == ("chat", "completion", "reasoning")
    encoder = shutil.copytree(encoder_model(), nano.parent / "encoder")
    facts = read_facts(encoder, nano.parent)
    assert (facts.capabilities, facts.parameters > 0) == (("embeddings",), True)


def test_a_template_has_one_hash_wherever_it_lies(nano: Path) -> None:
    (nano / "chat_template.jinja").unlink(missing_ok=True)
    (nano / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    inside = read_facts(nano, nano.parent)
    (nano / "tokenizer_config.json").write_text("{}")
    assert read_facts(nano, nano.parent).template_sha256 == ""
    (nano / "chat_template.jinja").write_text("{{ messages }}")
    assert read_facts(nano, nano.parent).template_sha256 == inside.template_sha256 != ""
    (nano / "chat_template.jinja").unlink()
    os.mkfifo(nano / "chat_template.jinja")
    assert read_template(nano, {"chat_template.jinja"}).text == ""


@pytest.mark.parametrize(
    ("card", "config", "expected"),
    [
        ("---\nlicense: apache-2.0\n---\n# x", {}, "apache-2.0"),
        ("---\r\nlicense: 'mit' # yes\r\n---\r\n", {}, "mit"),
        ("---\nlicense: other\nlicense_name: qwen\n---\n", {}, "qwen"),
        ("---\nlicense:\n- mit\n- apache-2.0\ntags:\n- x\n---\n", {}, "mit, apache-2.0"),
        ("---\nmodel:\n  license: mit\n---\n", {}, ""),
        ("---\ntags: x\n---\nlicense: mit\n", {}, ""),
        ("license: mit\n", {"license": "bsd"}, "bsd"),
        ("---\nlicense: \x1b[31mred\n---\n", {}, "?[31mred"),
        ("", {"license": ["mit"]}, ""),
        ("---\nlicense: " + "x" * 9000, {}, "x" * 64),
    ],
)
def test_licences(tmp_path: Path, card: str, config: dict[str, Any], expected: str) -> None:
    (tmp_path / "README.md").write_text(card, newline="")
    assert licence(tmp_path, {"README.md"}, config) == expected


def test_files_in_folders_count_and_are_noticed(nano: Path) -> None:
    before = read_facts(nano, nano.parent)
    (nano / "original").mkdir()
    (nano / "original" / "model.safetensors").write_bytes(b"x" * 5000)
    (nano / ".git").mkdir()
    (nano / ".git" / "HEAD").write_text("x")
    (nano / "loop").symlink_to(nano)
    deep = nano.joinpath(*["d"] * (MAX_DEPTH + 2))
    deep.mkdir(parents=True)
    (deep / "too-deep").write_text("x")
    after = read_facts(nano, nano.parent)
    assert set(after.names) == set(before.names)
    assert [file.name for file in set(after.files) - set(before.files)] == ["original/model.safetensors"]
    assert (after.weight_bytes, after.total_bytes) == (before.weight_bytes, before.total_bytes + 5000)
    assert after.problem is None
    assert "original/model.safetensors" in list_names(nano)
    [one] = scan([nano.parent]).found
    (nano / "original" / "model.safetensors").write_bytes(b"x" * 6000)
    [two] = scan([nano.parent]).found
    assert one.fingerprint != two.fingerprint


def test_a_manifest_with_folders_is_held_against_them(nano: Path) -> None:
    (nano / "extra").mkdir()
    (nano / "extra" / "a.json").write_text("{}")

    def state(names: list[str], version: int) -> tuple[str, tuple[str, ...]]:
        files = {name: FileEntry((nano / name).stat().st_size, sha256_file(nano / name)) for name in names}
        write_manifest(nano, Manifest("huggingface", "org/model", "r1", files, version=version))
        [found] = scan([nano.parent]).found
        row = examine(found)
        return row.disk_state, row.bad

    names = [file.name for file in list_files(nano)]
    top = [name for name in names if "/" not in name]
    assert state(names, 2) == ("verified", ())
    assert state(top, 1) == ("verified", ()), "an old manifest leaves folders out"
    assert state(top, 2) == ("adopted", ()), "a file that nobody signed"
    assert state(names, 2) == ("verified", ())
    (nano / "extra" / "a.json").unlink()
    [found] = scan([nano.parent]).found
    assert (examine(found).disk_state, examine(found).bad) == ("corrupt", ("extra/a.json",))
