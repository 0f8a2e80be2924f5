"""What a model's page tells of its revisions, and what its buttons for them do."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from django.test import AsyncClient

from inference.api import deps
from inference.catalog import ModelRef
from inference.engine import set_engine
from inference.errors import Conflict, LmxError
from inference.fetching import JobStatus
from inference.keeping import ChangedFile, Conversion, ConvertTo, Kept, Looked, RolledBack, Trial, Update, Updated
from monitoring import actions
from monitoring.hub import Hub, set_hub
from monitoring.sampler import Sampler, set_sampler
from tests.models_admin.site import copy, site_on
from tests.monitoring.fakes import FakeEngine

pytestmark = pytest.mark.django_db(transaction=True)
HTMX = {"HX-Request": "true"}
NEW, OLD = "a" * 40, "b" * 40
JOB = JobStatus(7, "fetch", "org/model", "running")


class Keeping:
    """An updater and a converter that write down what is asked of them, and refuse with ``refusal``."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.told: dict[str, Kept] = {}
        self.refusal: LmxError | None = None
        self.problem = ""

    def _note(self, *what: str) -> None:
        self.asked.append(what)
        if self.refusal is not None:
            raise self.refusal

    async def check(self, model_id: str | None = None) -> list[Looked]:
        self._note("check", str(model_id))
        return [Looked(str(model_id), problem=self.problem)]

    async def update(self, model_id: str) -> Updated:
        self._note("update", model_id)
        return Updated(model_id, "running", JOB)

    async def wait(self, model_id: str, job: int) -> Updated:
        return Updated(model_id, "updated", JOB)

    async def rollback(self, model_id: str, revision: str | None = None, *, forward: bool = False) -> RolledBack:
        self._note("rollback", model_id, str(revision))
        return RolledBack(model_id, str(revision), "/models", NEW, f"{model_id}@{NEW}")

    def kept(self, refs: Sequence[ModelRef]) -> list[Kept]:
        return [self.told.get(ref.revision or "", Kept(is_current="@" not in ref.id)) for ref in refs]


class Converting:
    """Its other half: ``wait`` has another signature."""

    def __init__(self, keeping: Keeping) -> None:
        self._keeping = keeping

    async def convert(
        self, source: str, to: ConvertTo, *, name: str | None = None, is_path: bool = False
    ) -> Conversion:
        self._keeping._note("convert", source, str(to.bits))
        return Conversion("local/model-4bit", "/models/local", JOB)

    async def wait(self, conversion: Conversion) -> Conversion:
        return conversion


@pytest.fixture
async def keeping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Keeping]:
    models = tmp_path / "models"
    for revision in (OLD, NEW):
        copy(models / "org" / "model" / revision, signed=True)
    copy(models / "plain")
    async with site_on(models) as site:
        engine, hub, found = FakeEngine(*(ref.id for ref in site.catalog.all())), Hub(), Keeping()
        sampler = Sampler(hub, engine)
        monkeypatch.setattr(actions, "_actions", actions.Actions())
        set_engine(engine)
        set_hub(hub)
        set_sampler(sampler)
        deps.configure(catalog=site.catalog, keeper=site.keeper, updater=found, converter=Converting(found))
        sampler.tick()
        yield found
        deps.configure()
        set_sampler(None)
        set_hub(None)
        set_engine(None)


async def page(name: str = "org/model") -> str:
    response = await AsyncClient().get("/models/one", {"model_id": name})
    assert response.status_code == 200
    return " ".join(response.content.decode().split())


async def press(what: str, status: int = 200, **fields: str) -> str:
    response = await AsyncClient().post(f"/models/{what}?one=org/model", {"model": "org/model", **fields}, headers=HTMX)
    assert response.status_code == status
    return " ".join(response.content.decode().split())


async def test_it_works(keeping: Keeping) -> None:
    shown = await page()
    assert "The Hub was not asked yet" in shown
    assert "Use this one" in shown
    assert f"org/model@{OLD[:7]}" in shown or f"org/model@{NEW[:7]}" in shown
    assert "4 bits" in shown
    files = (ChangedFile("model.safetensors", 3 << 30), ChangedFile("extra.json", 10, "new"))
    update = Update("c" * 40, 3 << 30, files, (), documents_only=False)
    keeping.told = dict.fromkeys((OLD, NEW), Kept(update=update, checked_at=1.0))
    shown = await page()
    assert "2 files, 3.0 GB" in shown
    assert "Update (3.0 GB)" in shown
    await press("update")
    await press("check")
    await press("convert", bits="6")
    await press("rollback", revision=OLD)
    assert keeping.asked == [
        ("update", "org/model"),
        ("check", "org/model"),
        ("convert", "org/model", "6"),
        ("rollback", "org/model", OLD),
    ]


async def test_documents_alone_are_no_reason_to_update(keeping: Keeping) -> None:
    update = Update("c" * 40, 10, (ChangedFile("README.md", 10),), (), documents_only=True)
    keeping.told = dict.fromkeys((OLD, NEW), Kept(update=update, checked_at=1.0))
    shown = await page()
    assert "the model is the same" in shown
    assert "Update (" not in shown
    keeping.told = dict.fromkeys((OLD, NEW), Kept(checked_at=1.0))
    assert "Nothing newer at the Hub" in await page()


async def test_a_revision_that_did_not_answer_says_why(keeping: Keeping) -> None:
    trial = Trial("failed", "it spoke <b>rubbish</b>", 2.0)
    keeping.told = dict.fromkeys((OLD, NEW), Kept(trial=trial, superseded_at=3.0))
    shown = await page()
    assert "did not answer its smoke prompt: it spoke &lt;b&gt;rubbish" in shown
    assert "replaced" in shown


async def test_a_refusal_is_a_notice(keeping: Keeping) -> None:
    keeping.refusal = Conflict("it is busy <now>", code="model_busy")
    for what in ("update", "check", "convert", "rollback"):
        assert "it is busy &lt;now&gt;" in await press(what, bits="4", revision=OLD)
    assert "model was not rolled back." in await page()
    keeping.refusal, keeping.problem = None, "the repository is gone"
    assert "was not compared with the Hub.</strong> the repository is gone" in await press("check")


@pytest.mark.parametrize(
    ("what", "fields"),
    [
        ("convert", {"bits": "5"}),
        ("convert", {}),
        ("rollback", {}),
        ("rollback", {"revision": "x" * 200}),
        ("update", {"model": ""}),
        ("check", {"model": "x" * 9999}),
    ],
)
async def test_what_makes_no_sense_is_refused(keeping: Keeping, what: str, fields: dict[str, str]) -> None:
    await press(what, 400, **fields)
    assert keeping.asked == []


async def test_a_model_without_revisions_is_told_of_conversion_alone(keeping: Keeping) -> None:
    shown = await page("plain")
    assert "Use this one" not in shown
    assert "Ask the Hub" not in shown
    assert re.search(r"Make a smaller model", shown)


async def test_they_are_posts_with_a_token(keeping: Keeping) -> None:
    client = AsyncClient(enforce_csrf_checks=True)
    for what in ("check", "update", "rollback", "convert"):
        assert (await client.get(f"/models/{what}")).status_code == 405
        assert (await client.post(f"/models/{what}", {"model": "org/model"})).status_code == 403
