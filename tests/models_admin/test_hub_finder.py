"""Finding models: the real child on a Hub of this machine, a real catalog, the engine's own arithmetic."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from inference.catalog import ModelRef
from inference.engine.policy import Resident
from inference.errors import InvalidRequest, LmxError, ModelNotFound
from inference.finding import Query
from inference.model_settings import ModelSettings
from models_admin.hub_client import HubClient
from models_admin.manifest import Manifest, write_manifest
from models_admin.row import Row
from tests.material.hub import COMMIT, Hub, HubRepo
from tests.models_admin.hub_site import GIB, Finding, finding, machine, paths, repo
from tests.models_admin.site import copy

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.asyncio(loop_scope="module")]

WIDE: dict[str, Any] = {
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 131_072,
}
WIDE |= {"dtype": "bfloat16"}
"""128 KiB of KV a token."""

BERT = {"model_type": "bert", "hidden_act": "gelu"}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """One Hub and below one child for all tests: the child reads the Hub's address once."""
    with Hub({}) as found, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", found.url)
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hf")))
        patch.delenv("HF_TOKEN", raising=False)
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(shelf: Hub) -> AsyncIterator[HubClient]:
    found = HubClient()
    yield found
    await found.stop()


@pytest.fixture
def hub(shelf: Hub) -> Iterator[Hub]:
    """``acme/nano`` in three quantizations and as GGUF, and one of another author."""
    shelf.repos = {
        "acme/nano-4bit": repo(4, downloads=500, weights=4 * GIB // 4, config=WIDE),
        "acme/nano-8bit": repo(8, downloads=400, weights=8 * GIB // 4, config=WIDE),
        "acme/nano-bf16": repo(None, downloads=10, weights=16 * GIB // 2, config=WIDE),
        "acme/nano-GGUF": HubRepo({"nano.Q4_K_M.gguf": b"GGUF"}, about={"tags": ["gguf"], "downloads": 900}),
        "other/nano-4bit": repo(4, downloads=5, gated="manual"),
    }
    yield shelf
    shelf.asked.clear()
    shelf.status = None


@pytest_asyncio.fixture(loop_scope="module")
async def found(client: HubClient, hub: Hub, tmp_path: Path) -> AsyncIterator[Finding]:
    client.forget()
    async with finding(client, tmp_path / "models", keep_free=0) as made:
        yield made


class OneModel:
    """A catalog with one model in it."""

    def __init__(self, ref: ModelRef) -> None:
        self._ref = ref

    def resolve(self, name: str) -> ModelRef:
        return self._ref

    resolve_exactly = resolve

    def all(self) -> list[ModelRef]:
        return [self._ref]

    def rows(self) -> list[Row]:
        return []

    def rows_of(self, repo: str) -> list[Row]:
        return []


async def names(found: Finding, **fields: Any) -> list[str]:
    return [model.model_id for model in (await found.finder.search(Query(**fields))).models]


async def test_it_works(found: Finding, hub: Hub) -> None:
    assert await names(found, text="nano") == ["acme/nano-4bit", "acme/nano-8bit", "acme/nano-bf16", "other/nano-4bit"]
    view = await found.finder.view("acme/nano-8bit")
    assert (view.model.quantization, view.model.licence, view.verdict.verdict) == ("8bit", "mit", "fits")
    assert "<h3>Nano</h3>" in view.card.html
    assert "script>" not in view.card.html
    assert {file.name for file in view.files if not file.fetched} == {"run.py", "pytorch_model.bin", "weights.pt"} | {
        "../../x.json"
    }
    assert view.fetched_bytes == sum(file.size for file in view.files if file.fetched)


async def test_searching(found: Finding) -> None:
    assert await names(found, author="other") == ["other/nano-4bit"]
    assert await names(found, text="nano", format=None, limit=2) == ["acme/nano-4bit", "acme/nano-GGUF"]
    assert await names(found, text="nano", format="gguf") == ["acme/nano-GGUF"]
    assert await names(found, quantization="8bit") == ["acme/nano-8bit"]
    assert await names(found, max_bytes=9 * GIB, min_bytes=5 * GIB) == ["acme/nano-8bit"]
    assert await names(found, min_parameters=7 * GIB, max_parameters=9 * GIB, sort="likes") == [
        "acme/nano-4bit",
        "acme/nano-8bit",
        "acme/nano-bf16",
    ]
    assert await names(found, text="no such model") == []


async def test_all_pages_of_a_search(found: Finding) -> None:
    seen, cursor = [], ""
    while True:
        page = await found.finder.search(Query(text="nano", limit=3, cursor=cursor))
        seen += [model.model_id for model in page.models]
        cursor = page.cursor
        if not cursor:
            break
    assert len(seen) == len(set(seen)) == 4


async def test_the_context_is_what_memory_allows(found: Finding) -> None:
    name = "acme/nano-4bit"  # 4 GiB by what a search tells
    await names(found, text="nano")
    assert (await found.finder.fit(name, brief=True)).sentence == (
        "Fits with 32k tokens of context: it needs 8.0 GB, 66.4 GB is free."
    )
    found.situation = machine(total=10, used=2, gpu=None)  # 7 may be used: 3 for KV
    verdict = await found.finder.fit(name, brief=True)
    assert verdict.memory is not None
    assert (verdict.verdict, verdict.memory.now.max_context) == ("fits_with_less_context", 24_576)
    assert verdict.sentence == (
        "Fits with at most 24k tokens of context: with 32k it needs 8.0 GB, and models may use 9.0 GB on this machine, "
        "less 2.0 GB that other programs hold."
    )
    assert (await found.finder.fit(name, 16_384, brief=True)).verdict == "fits"
    found.situation = machine(total=5, used=2, gpu=None)
    assert (await found.finder.fit(name, brief=True)).verdict == "too_large"


async def test_what_is_loaded_can_give_way(found: Finding) -> None:
    await names(found, text="nano")
    found.situation = machine(total=20, used=14, gpu=None)
    found.situation = type(found.situation)(
        found.situation.reading, found.situation.limits, [Resident("big/idle-7b", held=10 * GIB)]
    )
    verdict = await found.finder.fit("acme/nano-4bit", brief=True)
    assert (verdict.verdict, verdict.memory and verdict.memory.unload) == ("fits_after_unloading", ("big/idle-7b",))
    assert verdict.sentence == (
        "Fits with 32k tokens of context once idle-7b is unloaded: it needs 8.0 GB, 4.0 GB is free."
    )


async def test_a_row_of_results_costs_one_file_and_once(found: Finding, hub: Hub) -> None:
    await names(found, text="nano")
    for _ in range(3):
        await found.finder.fit("acme/nano-4bit", brief=True)
    assert paths(hub)[1:] == [f"acme/nano-4bit/resolve/{COMMIT}/config.json"]


@pytest.mark.parametrize(
    ("files", "config", "says"),
    [
        ({"a.gguf": b"x"}, None, "it is GGUF"),
        ({"pytorch_model.bin": b"x", "config.json": b"{}"}, None, "only pickle weights"),
        ({"README.md": b"x"}, None, "no safetensors weights"),
        ({"model.safetensors": b"x"}, None, "no config.json"),
        (None, {"model_type": "nonsense-9"}, "does not know the architecture 'nonsense-9'"),
        (None, {"quantization_config": {"quant_method": "bitsandbytes"}}, "quantized by bitsandbytes"),
        (None, {"model_type": 5}, "does not name an architecture"),
        (None, {"model_type": "<b>\x1b[31m" * 40}, "does not know the architecture '<b>?[31m"),
    ],
)
async def test_what_cannot_be_used_is_said_before_it_is_fetched(
    found: Finding, hub: Hub, files: dict[str, bytes] | None, config: dict[str, Any] | None, says: str
) -> None:
    hub.repos["acme/odd"] = HubRepo(files) if files is not None else repo(4, config=config)
    verdict = await found.finder.fit("acme/odd")
    assert (verdict.verdict, verdict.supported) == ("unsupported", False)
    assert says in verdict.sentence
    assert len(verdict.sentence) < 300


async def test_an_embedding_model(found: Finding, hub: Hub) -> None:
    hub.repos["acme/vectors"] = repo(None, config=BERT | {"architectures": ["BertModel"]})
    verdict = await found.finder.fit("acme/vectors")
    assert (verdict.verdict, verdict.kv_bytes_per_token) == ("fits", 0)
    hub.repos["acme/ranker"] = repo(None, config=BERT | {"architectures": ["BertForSequenceClassification"]})
    assert "classifier" in (await found.finder.fit("acme/ranker")).problem


async def test_a_gated_model(found: Finding, hub: Hub) -> None:
    hub.repos["other/nano-4bit"].gated = True
    view = await found.finder.view("other/nano-4bit")
    assert (view.verdict.verdict, view.verdict.readable, view.verdict.token) == ("gated", False, False)
    assert "HF_TOKEN" in view.verdict.sentence
    assert view.card.html == ""
    assert view.verdict.memory is not None
    assert view.verdict.memory.now.fits


async def test_the_disk(found: Finding, hub: Hub, tmp_path: Path) -> None:
    name = "acme/nano-4bit"
    verdict = await found.finder.fit(name)
    assert verdict.disk is not None
    assert (verdict.disk.fits, verdict.disk.have_bytes) == (True, 0)
    whole = verdict.disk.needed_bytes
    partial = tmp_path / "models" / name / f".{COMMIT}.partial"
    partial.mkdir(parents=True)
    content = hub.repos[name].files
    (partial / "config.json").write_bytes(content["config.json"])
    (partial / "model.safetensors.part").write_bytes(content["model.safetensors"][:1000])
    (partial / "tokenizer.json.part").write_bytes(content["tokenizer.json"] + b"too much")
    disk = (await found.finder.fit(name)).disk
    assert disk is not None
    assert disk.have_bytes == 1000 + len(content["config.json"])
    assert disk.needed_bytes == whole - disk.have_bytes
    found.finder._keep_free = shutil.disk_usage(tmp_path).free
    verdict = await found.finder.fit(name)
    assert verdict.verdict == "disk_full"
    assert verdict.sentence.startswith("No room on the disk")


async def test_what_is_here(found: Finding, hub: Hub, tmp_path: Path) -> None:
    name = "acme/nano-4bit"
    copy(tmp_path / "models" / name / COMMIT)
    await found.catalog.refresh()
    [here] = (await found.finder.view(name)).verdict.here
    assert (here.model_id, here.revision, here.current) == (name, COMMIT, True)
    assert (await found.finder.search(Query(text="nano-4bit", author="acme"))).models[0].here == (COMMIT,)
    hub.repos[name].commit = "6" * 40
    found.client.forget()
    verdict = (await found.finder.view(name)).verdict
    assert ([one.current for one in verdict.here], verdict.newer) == ([False], "6" * 40)
    hub.asked.clear()
    verdict = await found.finder.fit(name)
    assert (verdict.source, verdict.verdict, paths(hub)) == ("disk", "fits", [])


async def test_a_local_model_is_judged_with_the_context_that_its_owner_set(found: Finding, tmp_path: Path) -> None:
    copy(tmp_path / "models" / "mine")
    await found.catalog.refresh()
    memory = (await found.finder.fit("mine")).memory
    assert memory is not None
    assert memory.context == 2048
    own = found.catalog.resolve("mine")
    found.finder._catalog = OneModel(replace(own, settings=ModelSettings(context=512)))
    for asked, context in ((None, 512), (1024, 1024)):
        memory = (await found.finder.fit("mine", asked)).memory
        assert memory is not None
        assert memory.context == context


async def test_a_local_model_that_is_broken(found: Finding, tmp_path: Path) -> None:
    (copy(tmp_path / "models" / "mine") / "model.safetensors").unlink()
    await found.catalog.refresh()
    verdict = await found.finder.fit("mine")
    assert (verdict.source, verdict.verdict) == ("disk", "unsupported")
    assert "no weights" in verdict.sentence
    with pytest.raises(ModelNotFound, match="nearest"):
        await found.finder.fit("nine")


async def test_variants_and_which_is_chosen(found: Finding, hub: Hub) -> None:
    view = await found.finder.view("acme/nano-8bit")
    assert [(one.model_id, one.quantization, one.verdict) for one in view.variants] == [
        ("acme/nano-8bit", "8bit", "fits"),
        ("acme/nano-4bit", "4bit", "fits"),
        ("acme/nano-bf16", "bf16", "fits"),
    ]
    assert (view.chosen, view.why.startswith("4bit is the first")) == ("acme/nano-4bit", True)
    found.finder._preference = ("bf16", "8bit")
    found.situation = machine(total=22, used=2, gpu=None)
    view = await found.finder.view("acme/nano-4bit")
    assert view.chosen == "acme/nano-8bit"
    assert view.why == "bf16 would be preferred and does not fit here; 8bit does."


async def test_the_preference_picks_what_a_download_means(found: Finding, hub: Hub) -> None:
    choose = found.finder.choose
    assert await choose("acme/nano", None) == "acme/nano-4bit"
    assert await choose("acme/nano", "8-bit") == "acme/nano-8bit"
    assert await choose("acme/nano-GGUF", None) == "acme/nano-GGUF"
    assert await choose("acme/nothing", None) == "acme/nothing"
    with pytest.raises(ModelNotFound, match="acme/nano-4bit, acme/nano-8bit, acme/nano-bf16") as refused:
        await choose("acme/nano", "3bit")
    assert refused.value.param == "quantization"
    hub.status = 500
    assert await choose("acme/unknown", None) == "acme/unknown"


async def test_names_that_are_none(found: Finding, hub: Hub) -> None:
    for name in ("../x", "a/b/c", "https://evil.example/a/b", "a/b@../c", "a/\x00b"):
        with pytest.raises((InvalidRequest, ModelNotFound)):
            await found.finder.view(name)
    assert hub.asked == []


async def test_a_hub_that_is_away_is_said_and_not_guessed_around(found: Finding, hub: Hub) -> None:
    hub.status = 503
    for question in (found.finder.search(Query()), found.finder.view("acme/x"), found.finder.fit("acme/x")):
        with pytest.raises(LmxError) as refused:
            await question
        assert refused.value.code == "hub_unreachable"


async def test_an_answer_from_elsewhere_is_not_followed(found: Finding, hub: Hub) -> None:
    """A model that answers under another name, with its own idea of where its files are."""
    hub.repos["acme/alias"] = repo(4)
    hub.repos["acme/alias"].name = "../../etc"
    with pytest.raises(LmxError) as refused:
        await found.finder.view("acme/alias")
    assert refused.value.code == "hub_error"


async def test_the_manifest_of_another_place_says_nothing_of_the_hub(found: Finding, tmp_path: Path) -> None:
    directory = copy(tmp_path / "models" / "loose")
    write_manifest(directory, Manifest("huggingface", "acme/nano-4bit", COMMIT, {}))
    await found.catalog.refresh()
    assert (await found.finder.view("acme/nano-4bit")).verdict.here == ()
