"""``GET /admin/models/list`` in pages, and what is found in ten thousand models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from inference.api import deps, models_list
from inference.engine import set_engine
from inference.listing import SORTS, Listed, Page, Wanted, listed, select
from tests.api.conftest import Api
from tests.api.fake_engine import FakeEngine
from tests.material.many import ManyCatalog, many_rows

COUNT = 10_000


@pytest.fixture(scope="module")
def many() -> Iterator[ManyCatalog]:
    root = Path("/models")
    catalog = ManyCatalog(many_rows(COUNT, root), root)
    yield catalog
    catalog.close()


@pytest.fixture
def engine(many: ManyCatalog) -> Iterator[FakeEngine]:
    found = FakeEngine(many)  # type: ignore[arg-type]
    set_engine(found)
    deps.configure(catalog=many)
    yield found
    deps.configure()
    set_engine(None)


async def ask(api: Api, query: str) -> dict[str, Any]:
    status, body = await api.get(f"/admin/models/list{query}")
    assert status == 200, body
    return dict(body)


def ids(body: dict[str, Any]) -> list[str]:
    return [model["model_id"] for model in body["models"]]


async def test_without_a_query_all_are_there_in_the_old_shape(engine: FakeEngine, api: Api) -> None:
    body = await ask(api, "")
    assert (set(body), len(body["models"])) == ({"models"}, COUNT)


async def test_pages_make_up_the_whole_list(engine: FakeEngine, api: Api, many: ManyCatalog) -> None:
    found = list[str]()
    offset: int | None = 0
    while offset is not None:
        body = await ask(api, f"?limit=900&offset={offset}")
        assert body["total"] == COUNT
        found += ids(body)
        offset = body["next_offset"]
    assert found == [ref.id for ref in many.all()]


async def test_a_page_describes_only_what_is_on_it(
    engine: FakeEngine, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = list[str]()

    def counted(ref: Any, status: Any) -> dict[str, Any]:
        described.append(ref.id)
        return {"model_id": ref.id}

    monkeypatch.setattr(models_list, "listed_model", counted)
    body = await ask(api, "?limit=50&search=qwen3 4bit&sort=size&order=desc")
    assert described == ids(body)
    assert len(described) == 50
    assert body["total"] > 50


async def test_search_filters_and_order(engine: FakeEngine, api: Api) -> None:
    body = await ask(api, "?search=model-00042&limit=10")
    assert (ids(body), body["total"], body["next_offset"]) == (["org-42/model-00042-6bit"], 1, None)
    assert (await ask(api, "?search=model-00042 8bit&limit=10"))["total"] == 0
    corrupt = await ask(api, "?disk_state=corrupt,offline&limit=1000&sort=size&order=desc")
    assert {model["disk_state"] for model in corrupt["models"]} == {"corrupt", "offline"}
    sizes = [model["size_bytes"] for model in corrupt["models"]]
    assert sizes == sorted(sizes, reverse=True)
    await engine.load("org-07/model-00007-8bit", context=None, slots=None, pin=None)
    body = await ask(api, "?sort=state&limit=2")
    assert ids(body)[0] == "org-07/model-00007-8bit"
    assert ids(await ask(api, "?state=ready")) == ["org-07/model-00007-8bit"]
    assert (await ask(api, "?kind=embeddings&limit=5"))["total"] == 0
    past = await ask(api, "?limit=300&offset=99999999")
    assert (past["offset"], len(past["models"]), past["next_offset"]) == (9900, 100, None)


@pytest.mark.parametrize("sort", SORTS)
def test_every_order_turns_round(many: ManyCatalog, sort: Any) -> None:
    def page(order: Any) -> Page:
        return select(many.all(), {}, Wanted(sort=sort, order=order))

    keys: dict[Any, Any] = {"name": lambda one: one.ref.id, "size": lambda one: one.ref.weight_bytes}
    key = keys.get(sort, lambda one: 0)
    values = [key(one) for one in page("asc").models]
    assert values == sorted(values)
    assert [key(one) for one in page("desc").models] == sorted(values, reverse=True)


def test_one_that_cannot_be_loaded_is_failed(many: ManyCatalog) -> None:
    models: list[Listed] = listed(many.all(), {})
    assert {one.state for one in models if one.ref.problem} == {"failed"}
    assert {one.state for one in models if not one.ref.problem} == {"unloaded"}


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=ten", "limit"),
        ("limit=-1", "limit"),
        ("limit=١", "limit"),
        ("limit=", "limit"),
        ("offset=99999999999", "offset"),
        ("state=awake", "state"),
        ("disk_state=x", "disk_state"),
        ("kind=vision", "kind"),
        ("sort=__class__", "sort"),
        ("order=up", "order"),
        (f"search={'x' * 513}", "search"),
    ],
)
async def test_queries_that_mean_nothing_are_refused(engine: FakeEngine, api: Api, query: str, param: str) -> None:
    status, body = await api.get(f"/admin/models/list?{query}")
    assert status == 400
    assert body["error"]["param"].startswith(param)
    assert orjson.dumps(body)
