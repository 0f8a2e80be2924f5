"""Which model a name means."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference.catalog import ModelRef
from inference.errors import ModelNotFound
from models_admin.names import Names, Placed


def ref(
    repo: str, revision: str | None = None, quantization: str | None = None, problem: str | None = None
) -> ModelRef:
    path = Path("/m") / repo / (revision or "")
    return ModelRef(repo, path, revision=revision, quantization=quantization, problem=problem)


def names(*refs: ModelRef, default: str | None = None, **aliases: str) -> Names:
    return Names([Placed(ref, (rank,)) for rank, ref in enumerate(refs)], aliases, default)


def test_ids_are_unique_and_the_best_has_the_bare_name() -> None:
    index = names(ref("o/m", "bbbb"), ref("o/m", "aaaa"), ref("o/m", "aaaa"), ref("o/m"), ref("other"))
    assert [(r.id, r.revision) for r in index.all] == [
        ("o/m", "bbbb"), ("o/m@aaaa", "aaaa"), ("o/m@local", "aaaa"), ("o/m@local-2", None), ("other", None),
    ]  # fmt: skip
    assert index.resolve("o/m@aa").id == "o/m@aaaa"
    assert index.resolve("m").id == "o/m"


@pytest.mark.parametrize("name", ["mlx-community/Qwen3-4B-4bit", "qwen3-4b-4bit", "MLX-Community/QWEN3-4b-4bit", " Q "])
def test_names_in_any_case_short_names_and_aliases(name: str) -> None:
    index = names(ref("mlx-community/Qwen3-4B-4bit", quantization="4bit"), ref("z/other"), q="qwen3-4b-4bit")
    assert index.resolve(name).id == "mlx-community/Qwen3-4B-4bit"
    assert index.resolve(name).aliases == ("q",)


def test_exact_case_wins_where_two_differ_only_by_case() -> None:
    index = names(ref("o/Model"), ref("o/model"))
    assert index.resolve("o/Model").id == "o/Model"
    assert index.resolve("o/model").id == "o/model"
    with pytest.raises(ModelNotFound, match="fits 2 models"):
        index.resolve("O/MODEL")


def test_variants_choose_by_quantization_or_by_a_sibling_repository() -> None:
    four, eight = ref("o/M-4bit", quantization="4bit"), ref("o/M-8bit", quantization="8bit")
    index = names(four, eight)
    assert index.resolve("o/M-4bit:8bit").id == "o/M-8bit"
    assert index.resolve("m:4BIT").id == "o/M-4bit"
    assert index.resolve("o/m-4bit:latest").id == "o/M-4bit"
    with pytest.raises(ModelNotFound):
        index.resolve("o/M-4bit:6bit")


def test_names_with_signs_of_their_own() -> None:
    index = names(ref("llama3:8b"), ref("a@b"), ref("a"))
    assert [index.resolve(name).id for name in ("llama3:8b", "a@b", "a")] == ["llama3:8b", "a@b", "a"]


def test_ambiguous_short_names_are_refused_with_the_candidates() -> None:
    with pytest.raises(ModelNotFound, match="a/same, b/same"):
        names(ref("a/same"), ref("b/same")).resolve("same")


def test_alias_chains_circles_and_dead_ends() -> None:
    index = names(
        ref("o/m"), ref("a/x"), ref("b/x"), one="two", two="o/m", round="trip", trip="round", dead="gone", amb="x"
    )
    assert index.resolve("ONE").id == "o/m"
    for broken in ("round", "dead", "amb"):
        with pytest.raises(ModelNotFound):
            index.resolve(broken)


@pytest.mark.parametrize("name", ["", "default", "local-model", "Default", "  "])
def test_default_names(name: str) -> None:
    only, broken = ref("o/m"), ref("o/broken", problem="cut off")
    assert names(only, broken).resolve(name).id == "o/m"
    assert names(only, ref("z/z"), default="Z").resolve(name).id == "z/z"
    with pytest.raises(ModelNotFound, match="No default_model is set"):
        names(only, ref("z/z")).resolve(name)
    with pytest.raises(ModelNotFound, match="can be loaded"):
        names(broken).resolve(name)
    with pytest.raises(ModelNotFound, match=r"default model 'gone'.*nearest"):
        names(only, default="gone").resolve(name)


def test_a_model_really_called_default_goes_first() -> None:
    assert names(ref("default"), ref("x"), default="x").resolve("default").id == "default"


def test_unknown_names_get_the_nearest() -> None:
    index = names(ref("mlx-community/Qwen3-4B-4bit"), ref("org/Llama-3"), ref("tiny"))
    with pytest.raises(ModelNotFound, match="nearest is 'mlx-community/Qwen3-4B-4bit'") as error:
        index.resolve("qwen3-4b-8bit")
    assert error.value.details["nearest"][0] == "mlx-community/Qwen3-4B-4bit"
    with pytest.raises(ModelNotFound, match="nearest is 'tiny'"):
        index.resolve("tinny")
    with pytest.raises(ModelNotFound, match="no models on this server"):
        names().resolve("x")


@pytest.mark.parametrize("name", ["x" * 100_000, "@", ":", "@:@:", "\x00", "a@b@c:d:e", "🦊", "a\nb"])
def test_strange_names_are_not_found(name: str) -> None:
    with pytest.raises(ModelNotFound) as error:
        names(ref("o/m")).resolve(name)
    assert len(error.value.message) < 500
