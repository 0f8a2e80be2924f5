"""Which directories are embedding models, and what is wrong with those that cannot be loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from inference.catalog import ModelRef
from inference.embedding_files import is_embedding_model, read_embedding_files
from inference.errors import ModelNotFound
from inference.model_files import Unusable
from models_admin.catalog import DiskCatalog
from models_admin.demo import demo_needed
from models_admin.facts import Facts, read_facts
from models_admin.names import Names, Placed
from tests.material import encoder_model, models_dir, nano_model, place
from tests.material.encoder import CONTEXT


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return shutil.copytree(encoder_model(), tmp_path / "bert")


def facts(directory: Path) -> Facts:
    return read_facts(directory, directory.parent)


def change(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


class TestKind:
    def test_it_works(self, copy: Path) -> None:
        found = facts(copy)
        assert (found.kind, found.problem, found.architecture) == ("embeddings", None, "bert")
        assert (found.context_length, found.kv_bytes_per_token, found.quantization) == (CONTEXT, 0, "f32")
        assert found.weight_bytes == (copy / "model.safetensors").stat().st_size

    def test_a_language_model_is_none(self) -> None:
        assert read_facts(nano_model(), nano_model().parent).kind == "llm"

    @pytest.mark.parametrize(
        ("architecture", "files", "label", "expected"),
        [
            ("bert", (), "anything", True),
            ("modernbert", (), "anything", True),
            ("perceptron", ("modules.json",), "anything", True),
            ("perceptron", ("config_sentence_transformers.json",), "anything", True),
            ("qwen3", ("modules.json",), "anything", True),
            ("qwen3", (), "mlx-community/Qwen3-Embedding-0.6B-4bit-DWQ", True),
            ("qwen3", (), "intfloat/e5-embed", True),
            ("llama", (), "embeddings/llama", True),
            ("qwen3", (), "Qwen/Qwen3-0.6B", False),
            ("qwen3", (), "embedded-systems-coder", False),
            ("gemma3_text", (), "mlx-community/gemma-3-1b-it", False),
            ("perceptron", (), "some-embedding-model", False),
            (None, (), "embedding", False),
            (["bert"], (), "embedding", False),
        ],
    )
    def test_what_it_is_known_by(
        self, tmp_path: Path, architecture: object, files: tuple[str, ...], label: str, expected: bool
    ) -> None:
        config = {"model_type": architecture}
        assert is_embedding_model(tmp_path, set(files), config, label) is expected

    def test_gemma_that_looks_both_ways(self, tmp_path: Path) -> None:
        config = {"model_type": "gemma3_text", "use_bidirectional_attention": True}
        assert is_embedding_model(tmp_path, set(), config, "embeddinggemma-300m-4bit")

    def test_a_pooling_folder_alone(self, tmp_path: Path) -> None:
        (tmp_path / "1_Pooling").mkdir()
        (tmp_path / "1_Pooling" / "config.json").write_text("{}")
        assert is_embedding_model(tmp_path, set(), {"model_type": "llama"}, "x")


class TestProblems:
    @pytest.mark.parametrize(
        ("file", "fields", "says"),
        [
            ("config.json", {"model_type": "distilbert"}, "architecture 'distilbert' are not supported (only by bert"),
            ("config.json", {"architectures": ["BertForSequenceClassification"]}, "classifier or reranker"),
            ("config.json", {"model_type": "qwen2", "auto_map": {"AutoModel": "m.Q"}}, "code of its own"),
            ("config.json", {"model_type": "qwen2", "is_causal": False}, "both directions"),
            ("config.json", {"hidden_act": "relu"}, "activation is 'relu'"),
            ("config.json", {"model_type": "nomic_bert", "prenorm": True}, "prenorm is True"),
            ("config.json", {"model_type": "nomic_bert", "num_experts": 8, "hidden_act": "silu"}, "experts"),
            ("1_Pooling/config.json", {"pooling_mode": "attention"}, "pooling is 'attention'"),
        ],
    )
    def test_the_sentence_for_people(self, copy: Path, file: str, fields: dict[str, Any], says: str) -> None:
        change(copy / file, **fields)
        found = facts(copy)
        assert found.kind == "embeddings"
        assert says in (found.problem or "")
        assert not found.incomplete

    @pytest.mark.parametrize(
        ("module", "says"),
        [
            ({"path": "2_X", "type": "sentence_transformers.models.CNN"}, "not supported: CNN"),
            ({"path": "2_X", "type": "custom_st.Transformer"}, "code: custom_st.Transformer"),
            ({"path": "../elsewhere", "type": "sentence_transformers.models.Dense"}, "outside"),
            ({"path": "..", "type": "sentence_transformers.models.Dense"}, "outside"),
            ({"type": "sentence_transformers.models.Dense"}, "outside"),
            ({"path": "2_Dense", "type": "sentence_transformers.models.Dense"}, "2_Dense/config.json is missing"),
            (7, "not a list of modules"),
        ],
    )
    def test_modules(self, copy: Path, module: Any, says: str) -> None:
        modules = json.loads((copy / "modules.json").read_text())
        (copy / "modules.json").write_text(json.dumps([*modules, module]))
        assert says in (facts(copy).problem or "")

    def test_pickle_weights_only(self, copy: Path) -> None:
        (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
        found = facts(copy)
        assert "only pickle weights" in (found.problem or "")
        assert not found.incomplete

    def test_weights_that_are_not_all_there(self, copy: Path) -> None:
        with (copy / "model.safetensors").open("r+b") as file:
            file.truncate(1000)
        assert facts(copy).incomplete

    def test_no_tokenizer(self, copy: Path) -> None:
        (copy / "tokenizer.json").unlink()
        assert facts(copy).problem == "there is no tokenizer (tokenizer.json or tokenizer.model)"

    def test_a_folder_that_leads_elsewhere(self, copy: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
        elsewhere = tmp_path_factory.mktemp("elsewhere")
        shutil.move(copy / "1_Pooling", elsewhere / "1_Pooling")
        (copy / "1_Pooling").symlink_to(elsewhere / "1_Pooling")
        assert "is a link to a place outside" in (facts(copy).problem or "")

    def test_dense_layers_count_and_must_be_whole(self, copy: Path) -> None:
        modules = json.loads((copy / "modules.json").read_text())
        modules.append({"path": "3_Dense", "type": "sentence_transformers.models.Dense"})
        (copy / "modules.json").write_text(json.dumps(modules))
        dense = copy / "3_Dense"
        dense.mkdir()
        (dense / "config.json").write_text(json.dumps({"activation_function": "torch.nn.modules.linear.Identity"}))
        assert facts(copy).problem == "3_Dense has no weights"
        (dense / "pytorch_model.bin").touch()
        assert facts(copy).problem == "3_Dense has only pickle weights"
        before = (copy / "model.safetensors").stat().st_size
        save_file({"linear.weight": np.zeros((8, 64), np.float32)}, dense / "model.safetensors")
        assert (facts(copy).problem, facts(copy).weight_bytes) == (None, before + 8 * 64 * 4)
        (dense / "model.safetensors").write_bytes(b"x")
        assert "are broken" in (facts(copy).problem or "")

    @given(raw=st.binary(max_size=100))
    def test_no_file_raises(self, tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
        for name in ("modules.json", "sentence_bert_config.json", "1_Pooling/config.json"):
            directory = shutil.copytree(encoder_model(), tmp_path_factory.mktemp("any") / "bert")
            (directory / name).write_bytes(raw)
            assert facts(directory).kind == "embeddings"


class TestContext:
    @pytest.mark.parametrize(
        ("config", "expected"),
        [
            ({"model_type": "bert", "max_position_embeddings": 512}, 512),
            ({"model_type": "xlm-roberta", "max_position_embeddings": 514, "pad_token_id": 1}, 512),
            ({"model_type": "mpnet", "max_position_embeddings": 514}, 512),
            ({"model_type": "nomic_bert", "n_positions": 8192, "max_trained_positions": 2048}, 2048),
            ({"model_type": "bert"}, 0),
        ],
    )
    def test_positions(self, tmp_path: Path, config: dict[str, Any], expected: int) -> None:
        assert read_embedding_files(tmp_path, config).context == expected

    def test_the_smaller_of_both(self, tmp_path: Path) -> None:
        (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 8192}')
        config = {"model_type": "nomic_bert", "max_trained_positions": 2048}
        assert read_embedding_files(tmp_path, config).context == 2048
        assert read_embedding_files(tmp_path, {"model_type": "modernbert"}).context == 8192


def test_pooling_without_a_file_is_the_architectures(tmp_path: Path) -> None:
    for architecture, pooling in (("bert", "mean"), ("gemma3_text", "mean"), ("qwen3", "last")):
        found = read_embedding_files(tmp_path, {"model_type": architecture})
        assert (found.pooling, found.pooling_named) == ((pooling,), False)
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode_lasttoken": true}')
    assert read_embedding_files(tmp_path, {"model_type": "bert"}).pooling == ("last",)
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode": "lasttoken"}')
    assert read_embedding_files(tmp_path, {"model_type": "bert"}).pooling == ("last",)
    with pytest.raises(Unusable):
        read_embedding_files(tmp_path, {"model_type": "t5"})


@pytest.mark.django_db(transaction=True)
async def test_the_catalog_keeps_the_kind(tmp_path: Path) -> None:
    place(encoder_model(), tmp_path / "org" / "vectors")
    for _ in range(2):  # from the disk, then from the records
        catalog = DiskCatalog([tmp_path])
        await catalog.refresh()
        ref = catalog.resolve("vectors")
        assert (ref.kind, ref.format, ref.problem) == ("embeddings", "mlx", None)
        assert demo_needed(catalog)  # nothing here answers in words
        catalog.close()


def named(*refs: ModelRef) -> Names:
    return Names([Placed(ref, (index,)) for index, ref in enumerate(refs)], {}, None)


def test_who_names_no_model_gets_no_vectors() -> None:
    vectors = ModelRef("org/nomic-embed-text-v1.5", Path("/v"), kind="embeddings")
    text = ModelRef("org/talker", Path("/t"))
    assert named(vectors, text).resolve("") == named(text).resolve("")
    assert named(vectors).resolve("default").kind == "embeddings"


def test_the_name_that_lm_studio_gives_it() -> None:
    names = named(
        ModelRef("org/nomic-embed-text-v1.5", Path("/v"), kind="embeddings"), ModelRef("org/talker", Path("/t"))
    )
    assert names.resolve("text-embedding-nomic-embed-text-v1.5").id == "org/nomic-embed-text-v1.5"
    with pytest.raises(ModelNotFound):
        names.resolve("text-embedding-talker")


def test_scanning_does_not_take_its_folders_for_models(tmp_path: Path) -> None:
    from models_admin.scan import scan

    place(encoder_model(), models_dir(tmp_path, "nano") / "bert")
    assert sorted(found.path.name for found in scan([tmp_path]).found) == ["bert", "nano"]
