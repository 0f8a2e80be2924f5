"""The Hub's answers, read without trust; pages of a search; which variant is chosen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.errors import InvalidRequest
from inference.finding import HubModel, Query
from models_admin.hub_pages import Pages
from models_admin.hub_protocol import Answer
from models_admin.hub_told import MOST_FILES, told_files, told_model
from models_admin.hub_variants import choose, siblings, stem, with_quantization
from monitoring.templatetags.discover import day

COMMIT = "a" * 40


def told(**fields: Any) -> HubModel:
    found = told_model({"id": "acme/nano", "sha": COMMIT, **fields})
    assert found is not None
    return msgspec.convert(found, HubModel)


def test_it_works() -> None:
    model = told(
        tags=["mlx", "safetensors", "license:apache-2.0", "4-bit"],
        library_name="mlx",
        downloads=12,
        likes=3,
        lastModified="2026-03-01T10:00:00.000Z",
        gated="auto",
        pipeline_tag="text-generation",
        config={"model_type": "qwen3", "quantization_config": {"bits": 4, "group_size": 64}},
        safetensors={"parameters": {"U32": 500_000_000, "BF16": 125_100_000}, "total": 625_100_000},
    )
    assert (model.format, model.architecture, model.quantization) == ("mlx", "qwen3", "4bit")
    assert model.weight_bytes == 4 * 500_000_000 + 2 * 125_100_000
    assert model.parameters == 4_000_100_000  # eight to a word, and scales and biases are none
    assert (model.downloads, model.likes, model.gated, model.licence) == (12, 3, "auto", "apache-2.0")
    assert (model.updated_at, model.task, model.revision) == (1772359200.0, "text-generation", COMMIT)


@pytest.mark.parametrize(
    "fields",
    [
        {"safetensors": {"parameters": {"U32": 1 << 60}}, "config": {"quantization": {"bits": 1}}},
        {"safetensors": {"parameters": dict.fromkeys(("I64", "F64", "U64"), 1 << 60)}},
        {
            "siblings": [
                {"rfilename": name, "size": 1 << 60}
                for name in ("config.json", *(f"model-{n}.safetensors" for n in range(32)))
            ]
        },
    ],
)
def test_numbers_that_are_too_large_do_not_take_the_page_with_them(fields: dict[str, Any]) -> None:
    found = told_model({"id": "acme/nano", **fields})
    [model] = msgspec.convert(Answer.of(1, {"models": [found]}).read()["models"], list[HubModel])
    assert 0 <= model.parameters <= 1 << 60 == model.weight_bytes


@pytest.mark.parametrize(
    "moment", ["9999-12-31T23:59:59-23:59", "9999-12-31T23:59:59Z", "1969-12-31T00:00:00Z", "0001-01-01T00:00:00+23:59"]
)
def test_a_moment_that_none_can_have_is_unknown(moment: str) -> None:
    model = told(lastModified=moment)
    assert (model.updated_at, day(model.updated_at)) == (0.0, "–")


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"config": {"quantization": {"mode": "mxfp4", "bits": 4}}}, "mxfp4"),
        ({"config": {"quantization_config": {"quant_method": "bitsandbytes"}}}, "bitsandbytes"),
        ({"id": "acme/nano-6bit"}, "6bit"),
        ({"id": "acme/nano-bf16"}, "bf16"),
        ({"tags": ["8-bit"]}, "8bit"),
        ({"safetensors": {"parameters": {"BF16": 9, "F32": 1}}}, "bf16"),
        ({}, ""),
    ],
)
def test_the_quantization(fields: dict[str, Any], name: str) -> None:
    assert told(**fields).quantization == name


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"tags": ["mlx"]}, "mlx"),
        ({"library_name": "mlx", "siblings": [{"rfilename": "model.safetensors", "size": 5}]}, "mlx"),
        ({"siblings": [{"rfilename": "model.safetensors", "size": 5}]}, "safetensors"),
        ({"tags": ["mlx"], "siblings": [{"rfilename": "weights.npz", "size": 5}]}, "other"),
        ({"siblings": [{"rfilename": "a.Q4_K_M.gguf", "size": 5}]}, "gguf"),
        ({"siblings": [{"rfilename": "pytorch_model.bin", "size": 5}]}, "pickle"),
        ({"tags": ["gguf"]}, "gguf"),
        ({"tags": ["safetensors"]}, "safetensors"),
        ({"tags": ["pytorch"]}, "pickle"),
        ({}, "other"),
    ],
)
def test_the_format(fields: dict[str, Any], kind: str) -> None:
    assert told(**fields).format == kind


NAMES = ["../x", "a/b/c", "a", "", "a/..", "a/b\n", "a/<b>", "a/b--c", "a/\u202eb", "/a/b", "a/" + "b" * 300, 5, None]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_none_can_have_is_left_out(name: object) -> None:
    assert told_model({"id": name}) is None


def test_files_are_named_in_print_and_bounded() -> None:
    names = ["config.json", "model.safetensors", "../../x.json", "a\x1b[31m.json", "<b>.txt", "", "onnx/model.onnx"]
    raw: dict[str, Any] = {"siblings": [{"rfilename": name, "size": 7} for name in names]}
    found = {file["name"]: file["fetched"] for file in told_files(raw)}
    assert found == {
        "config.json": True,
        "model.safetensors": True,
        "../../x.json": False,
        "<b>.txt": False,
        "onnx/model.onnx": False,
    }
    many = {"siblings": [{"rfilename": f"{number}.json", "size": 1} for number in range(50 * MOST_FILES)]}
    assert len(told_files(many)) == 10 * MOST_FILES


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)
FIELDS = ["sha", "tags", "config", "safetensors", "siblings", "downloads", "likes", "lastModified", "gated", "cardData"]
FIELDS += ["pipeline_tag", "library_name", "gguf"]


@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=5))
def test_whatever_is_answered_comes_out_as_it_should_be(fields: dict[str, Any]) -> None:
    model = told(**fields)
    assert msgspec.convert(msgspec.to_builtins(model), HubModel) == model
    words = [model.author, model.architecture, model.quantization, model.licence, model.task, *model.tags]
    assert all(word.isprintable() and len(word) <= 128 for word in words)
    assert min(model.downloads, model.likes, model.parameters, model.weight_bytes, model.updated_at) >= 0


# ------------------------------------------------------------------------------------------------------------- pages


class Shelf:
    """The Hub's list: ``sizes`` of models in order; ``asked`` keeps what was asked of it."""

    def __init__(self, *sizes: int) -> None:
        self.models = [HubModel(f"acme/m{n}", weight_bytes=size, format="mlx") for n, size in enumerate(sizes)]
        self.asked: list[dict[str, Any]] = []

    async def __call__(self, params: dict[str, Any]) -> tuple[list[HubModel], str]:
        self.asked.append(params)
        start = int(params["cursor"] or 0)
        end = start + params["limit"]
        return self.models[start:end], str(end) if end < len(self.models) else ""


async def every(pages: Pages, query: Query) -> list[list[str]]:
    found, cursor = [], ""
    while True:
        page = await pages.page(replace(query, cursor=cursor))
        found.append([model.model_id for model in page.models])
        cursor = page.cursor
        if not cursor:
            return found


async def test_pages_follow_each_other() -> None:
    shelf = Shelf(*range(1, 8))
    pages = await every(Pages(shelf), Query(limit=3))
    assert pages == [["acme/m0", "acme/m1", "acme/m2"], ["acme/m3", "acme/m4", "acme/m5"], ["acme/m6"]]
    assert [asked["limit"] for asked in shelf.asked] == [3, 3, 3]
    assert shelf.asked[0]["filters"] == ["mlx"]


async def test_what_the_hub_does_not_filter_is_filtered_here_and_nothing_is_lost_between_pages() -> None:
    shelf = Shelf(*(1 if number % 3 else 9 for number in range(250)))
    pages = await every(Pages(shelf), Query(limit=20, min_bytes=5))
    names = [name for page in pages for name in page]
    assert names == [f"acme/m{number}" for number in range(0, 250, 3)]
    assert [len(page) for page in pages] == [20, 20, 20, 20, 4]


async def test_a_filter_that_leaves_nothing_asks_a_bounded_number_of_times() -> None:
    shelf = Shelf(*[1] * 5000)
    found = await Pages(shelf).page(Query(min_bytes=5))
    assert (found.models, found.looked_at, found.cursor) == ((), 400, "0~400")
    assert len(shelf.asked) == 4


@pytest.mark.parametrize("cursor", ["x", "1", "1000~", "-1~", "1~\n", "1~a b", "1~" + "x" * 3000, "٣~"])
async def test_a_cursor_of_somebody_elses_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidRequest, match="cursor"):
        await Pages(Shelf(1)).page(Query(cursor=cursor))


async def test_of_any_format_mlx_comes_first() -> None:
    shelf = Shelf(1, 2)
    shelf.models.insert(0, HubModel("acme/plain", format="safetensors"))
    found = await Pages(shelf).page(Query(format=None))
    assert [model.model_id for model in found.models] == ["acme/m0", "acme/m1", "acme/plain"]
    assert shelf.asked[0]["filters"] == []


# ---------------------------------------------------------------------------------------------------------- variants


def test_the_first_preferred_that_fits_is_chosen() -> None:
    named = {"a/x-4bit": "4bit", "a/x-8bit": "8bit", "a/x-bf16": "bf16"}
    assert choose(named, ["4bit", "8bit"]).model_id == "a/x-4bit"
    assert choose(named, ["6bit", "8-bit", "4bit"]).model_id == "a/x-8bit"
    found = choose(named, ["bf16", "8bit", "4bit"], {"a/x-4bit": True, "a/x-8bit": True, "a/x-bf16": False})
    assert found.model_id == "a/x-8bit"
    assert found.why == "bf16 would be preferred and does not fit here; 8bit does."
    found = choose(named, ["8bit"], dict.fromkeys(named, False))
    assert (found.model_id, "none of the preferred" in found.why) == ("a/x-8bit", True)
    assert choose(named, ["3bit"]).model_id == "a/x-4bit"
    assert choose({}, ["4bit"]).model_id == ""
    assert choose(named, ["3bit"], dict.fromkeys(named, False)).model_id == ""


def test_names_of_quantizations() -> None:
    assert stem("mlx-community/Qwen3-4B-4bit") == stem("mlx-community/Qwen3-4B") == "mlx-community/Qwen3-4B"
    others = ["a/x", "a/x-4bit", "a/X-8bit", "a/x-large-4bit", "b/x-4bit"]
    assert siblings("a/x-6bit", others) == ["a/X-8bit", "a/x", "a/x-4bit"]
    named = {"a/x-4bit": "4bit", "a/x-f": "f16"}
    assert [with_quantization(named, wanted) for wanted in ("4bit", "4-bit", "Q4", "int4", "fp16", "8bit", "")] == [
        "a/x-4bit",
        "a/x-4bit",
        "a/x-4bit",
        "a/x-4bit",
        "a/x-f",
        "",
        "",
    ]
