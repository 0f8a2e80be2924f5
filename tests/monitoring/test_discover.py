"""Discover through Django: a finder and a fetcher in memory, with gates; what is shown, and what never gets out."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from django.test import AsyncClient

from inference.api import deps
from inference.engine import set_engine
from inference.errors import Conflict, Forbidden, LmxError, ModelNotFound, ModelUnavailable, TooManyRequests
from inference.finding import Card, Found, Here, HubFile, ModelView, Query, Variant, Verdict
from lmx_site import access
from monitoring import discover
from monitoring.hub import Hub, set_hub
from monitoring.sampler import Sampler, set_sampler
from tests.monitoring.fakes import GIB, FakeEngine
from tests.monitoring.finding import COMMIT, FITS, NANO, FakeFetcher, FakeFinder

EVIL = '<img src=x onerror="alert(1)">'
MODEL = "/discover/model/acme/nano-4bit"
HTMX = {"HX-Request": "true"}


@pytest.fixture
async def finder() -> AsyncIterator[FakeFinder]:
    found, engine, hub = FakeFinder(), FakeEngine("org/one"), Hub()
    sampler = Sampler(hub, engine)
    set_engine(engine)
    set_hub(hub)
    set_sampler(sampler)
    sampler.tick()
    deps.configure(finder=found, fetcher=FakeFetcher())
    yield found
    found.gate.set()
    deps.configure()
    set_sampler(None)
    set_hub(None)
    set_engine(None)


@pytest.fixture
def fetcher(finder: FakeFinder) -> FakeFetcher:
    found = deps.fetcher()
    assert isinstance(found, FakeFetcher)
    return found


async def text(path: str = "/discover", headers: dict[str, str] | None = None, *, status: int = 200) -> str:
    response = await AsyncClient().get(path, headers=headers)
    assert response.status_code == status
    return str(response.content.decode())


async def press(path: str, **fields: Any) -> Any:
    return await AsyncClient().post(path, fields, headers=HTMX)


async def test_it_works(finder: FakeFinder) -> None:
    page = await text()
    assert 'aria-current="page"' in page
    assert "nano-4bit" in page
    assert "1.2M downloads" in page
    assert "2.0 GB" in page
    assert "4.0 B parameters" in page
    assert 'hx-get="/discover/fit?model=acme%2Fnano-4bit"' in page
    chip = await text("/discover/fit?model=acme%2Fnano-4bit", HTMX)
    assert 'data-verdict="fits"' in chip
    assert "fits · 32k" in " ".join(chip.split())


async def test_filters_are_in_the_address(finder: FakeFinder) -> None:
    page = await text("/discover?q=qwen&author=acme&format=any&quantization=8bit&size=16&sort=likes&cursor=20~x")
    [query] = finder.queries
    assert query == Query("qwen", "acme", None, "8bit", "likes", max_bytes=16 * GIB, cursor="20~x")
    assert 'value="qwen"' in page
    assert re.search(r'<option value="8bit" selected>', page)
    await text("/discover?size=fits")
    assert finder.queries[-1].max_bytes == 50 * GIB  # 86 may be used, 36 are


@pytest.mark.parametrize(
    "address",
    ["q=%00%1b&sort=x&format=y&size=z&quantization=q", "q=" + "x" * 5000, "size=-1&cursor=" + "x" * 5000, "q=%ff%fe"],
)
async def test_an_address_that_somebody_wrote_is_no_error(finder: FakeFinder, address: str) -> None:
    await text(f"/discover?{address}")
    [query] = finder.queries
    assert (query.sort, query.format, query.max_bytes, query.quantization) == ("downloads", "mlx", 0, "")
    assert query.text.isprintable() or not query.text
    assert len(query.text) <= 200


async def test_for_htmx_only_the_results_are_sent(finder: FakeFinder) -> None:
    part = await text("/discover?q=a", HTMX)
    assert part.lstrip().startswith('<section class="results')
    assert "<html" not in part
    assert "<html" in await text("/discover?q=a", HTMX | {"HX-History-Restore-Request": "true"})


async def test_pages(finder: FakeFinder) -> None:
    finder.found = Found((NANO,), "20~after:20", 20)
    page = await text("/discover?q=nano")
    assert 'href="/discover?q=nano&amp;cursor=20~after%3A20"' in page


async def test_nothing_was_found(finder: FakeFinder) -> None:
    finder.found = Found((), looked_at=0)
    page = await text("/discover?q=nonesuch")
    assert "No model was found for “nonesuch”" in page
    assert "look in every format" in page
    finder.found = Found((), "0~x", 400)
    assert "among the first 400" in await text("/discover?q=nonesuch&size=2")


async def test_a_slow_hub_does_not_hold_the_page(finder: FakeFinder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discover, "PATIENCE_S", 0.01)
    finder.gate.clear()
    page = await text("/discover?q=nano")
    assert "Asking the Hub" in page
    assert 'hx-get="/discover?q=nano" hx-trigger="load"' in page
    page = await text(MODEL)
    assert f'hx-get="{MODEL}" hx-trigger="load"' in page
    finder.gate.set()
    assert "Asking the Hub" not in await text("/discover?q=nano", HTMX)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ModelUnavailable("it is away", code="hub_unreachable"), "The Hub cannot be asked now"),
        (TooManyRequests("The Hub asks to wait 30 s.", retry_after=30), "The Hub asks to wait"),
        (ModelUnavailable(f"said {EVIL}", code="hub_error"), "That did not work"),
    ],
)
async def test_a_hub_that_does_not_answer(finder: FakeFinder, error: LmxError, says: str) -> None:
    finder.refuse = error
    for path in ("/discover?q=a", MODEL):
        page = await text(path)
        assert says in page
        assert "Try again" in page
        assert "<img" not in page
    chip = await text("/discover/fit?model=acme/nano-4bit", HTMX)
    assert "not known now" in chip


async def test_a_model_that_is_not_there(finder: FakeFinder) -> None:
    finder.refuse = ModelNotFound("There is no model acme/none")
    assert "There is no such model" in await text("/discover/model/acme/none", status=404)
    finder.refuse = Forbidden("not for this account", code="model_gated")
    assert "not shown to this account" in await text(MODEL)


async def test_a_model(finder: FakeFinder) -> None:
    finder.shown = replace(
        finder.shown,
        card=Card("<h3>Nano</h3>", cut=True),
        variants=(
            Variant("acme/nano-4bit", "4bit", 2 * GIB, "fits", "Fits.", chosen=True),
            Variant("acme/nano-8bit", "8bit", 4 * GIB, "too_large", "Does not fit."),
        ),
        chosen="acme/nano-4bit",
        why="4bit is first.",
        address="https://huggingface.co/acme/nano-4bit",
    )
    page = await text(MODEL)
    assert "Fits with 32k tokens of context." in page
    assert re.search(r"Download nano-4bit\s*\(2\.0 GB\)", page)
    assert "<h3>Nano</h3>" in page
    assert "4bit is first." in page
    assert 'href="/discover/model/acme/nano-8bit"' in page
    assert 'href="https://huggingface.co/acme/nano-4bit" rel="noreferrer"' in page


@pytest.mark.parametrize(
    ("verdict", "button"),
    [
        (FITS, "Download nano-4bit"),
        (replace(FITS, verdict="too_large"), "anyway"),
        (replace(FITS, verdict="unsupported", supported=False, problem="no"), None),
        (replace(FITS, verdict="disk_full"), None),
        (replace(FITS, verdict="gated", gated="manual", readable=False), None),
        (replace(FITS, here=(Here("acme/nano-4bit", "/m", COMMIT, "verified", True),), disk=None), None),
        (
            replace(FITS, here=(Here("acme/nano-4bit", "/m", "6" * 40, "verified", False),), newer=COMMIT),
            "Download the newer revision",
        ),
    ],
)
async def test_the_button_is_there_where_it_helps(finder: FakeFinder, verdict: Verdict, button: str | None) -> None:
    finder.shown = replace(finder.shown, verdict=verdict)
    page = await text(MODEL)
    assert ("/discover/download" in page) == (button is not None)
    assert button is None or button in page
    if verdict.verdict == "gated":
        assert "HF_TOKEN" in page


async def test_what_the_hub_says_stays_text(finder: FakeFinder) -> None:
    evil = replace(NANO, author=EVIL, licence=EVIL, quantization=EVIL, architecture=EVIL, tags=(EVIL,))
    finder.found = Found((evil,))
    verdict = replace(FITS, sentence=EVIL, quantization=EVIL, architecture=EVIL, problem=EVIL)
    variant = Variant("acme/nano-8bit", EVIL, 1, "fits", EVIL)
    finder.shown = ModelView(evil, verdict, (HubFile(EVIL, 1, True),), variants=(variant, variant), why=EVIL)
    for path in ("/discover", "/discover?q=" + EVIL.replace(" ", "+"), MODEL, "/discover/fit?model=a/b"):
        page = await text(path)
        assert "<img" not in page
        assert 'onerror="' not in page


async def test_a_download(finder: FakeFinder, fetcher: FakeFetcher) -> None:
    part = (await press("/discover/download", model="acme/nano-4bit")).content.decode()
    assert fetcher.started == [("acme/nano-4bit", None)]
    assert 'data-job="7"' in part
    assert "5 of 10 MB" in part
    assert 'data-refresh="/discover/transfer?job=7"' in part
    fetcher.job = replace(fetcher.job, state="done")
    part = await text("/discover/transfer?job=7", HTMX)
    assert "is on this machine" in part
    assert "data-refresh" not in part
    fetcher.job = replace(fetcher.job, state="failed", message=f"hash {EVIL}")
    part = await text("/discover/transfer?job=7", HTMX)
    assert "hash &lt;img" in part


async def test_a_download_that_is_refused(finder: FakeFinder, fetcher: FakeFetcher) -> None:
    fetcher.refuse = Conflict("a job works on it", code="model_busy")
    part = (await press("/discover/download", model="acme/nano-4bit")).content.decode()
    assert "a job works on it" in part
    assert "Look again" in part


async def test_a_download_that_runs_is_shown_in_place_of_its_button(finder: FakeFinder, fetcher: FakeFetcher) -> None:
    fetcher.listed = [replace(fetcher.job, subject="other/model"), fetcher.job]
    page = await text("/discover/model/ACME/nano-4bit")
    assert 'data-job="7"' in page
    assert "/discover/download" not in page


async def test_cancelling(finder: FakeFinder, fetcher: FakeFetcher) -> None:
    part = (await press("/discover/cancel", job="7", model="acme/nano-4bit")).content.decode()
    assert "Cancelled. What was fetched is kept" in part
    fetcher.job = replace(fetcher.job, state="done")
    fetcher.refuse = Conflict("it does not run", code="job_not_running")
    assert "is on this machine" in (await press("/discover/cancel", job="7")).content.decode()


async def test_a_paused_download_is_resumed(finder: FakeFinder, fetcher: FakeFetcher) -> None:
    fetcher.job = replace(fetcher.job, state="paused", total=0)
    part = await text("/discover/transfer?job=7", HTMX)
    assert "Resume download" in part
    assert "Cancel download" in part
    assert "<progress" not in part
    fetcher.job = replace(fetcher.job, state="running")
    part = (await press("/discover/resume", job="7", model="acme/nano-4bit")).content.decode()
    assert "Resume download" not in part
    assert 'data-state="running"' in part
    fetcher.refuse = Conflict("it is done", code="job_done")
    assert "it is done" in (await press("/discover/resume", job="7", model="acme/nano-4bit")).content.decode()


async def test_without_scripts_a_button_leads_back_to_the_page(finder: FakeFinder, fetcher: FakeFetcher) -> None:
    response = await AsyncClient().post("/discover/download", {"model": "acme/nano-4bit"})
    assert (response.status_code, response.headers["Location"]) == (302, MODEL)
    response = await AsyncClient().post("/discover/download", {"model": "//evil.example"})
    assert response.status_code == 400
    fetcher.job = replace(fetcher.job, kind="verify", subject="a/b\nc")
    response = await AsyncClient().get("/discover/transfer?job=7")
    assert (response.status_code, response.headers["Location"]) == (302, "/discover")


@pytest.mark.parametrize("path", ["/discover/download", "/discover/resume", "/discover/cancel"])
async def test_actions_are_posts_with_a_token(finder: FakeFinder, fetcher: FakeFetcher, path: str) -> None:
    client = AsyncClient(enforce_csrf_checks=True)
    assert (await client.get(path)).status_code == 405
    assert (await client.post(path, {"model": "acme/nano-4bit", "job": "7"})).status_code == 403
    assert fetcher.started == []


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/discover/download", {}),
        ("/discover/download", {"model": "x" * 600}),
        ("/discover/download", {"model": "a/b\nc"}),
        ("/discover/cancel", {"job": "7", "model": "a/b\nc"}),
        ("/discover/download", {"model": "a/b", "revision": "x" * 200}),
        ("/discover/cancel", {"job": "x"}),
        ("/discover/cancel", {"job": "9" * 40}),
        ("/discover/cancel", {"job": "٣"}),
    ],
)
async def test_what_cannot_be_asked(finder: FakeFinder, path: str, fields: dict[str, str]) -> None:
    assert (await press(path, **fields)).status_code == 400
    assert (await AsyncClient().post(path, fields)).status_code == 400, "nor without scripts"


async def test_only_the_owner_sees_it(finder: FakeFinder) -> None:
    access.set_keys(access.Keys.of(None, "a-secret", trust_lan=False))
    for path in ("/discover", MODEL, "/discover/fit?model=a/b", "/discover/transfer?job=7"):
        response = await AsyncClient().get(path)
        assert (response.status_code, response.headers["Location"].split("?")[0]) == (302, "/login")
    assert finder.queries == []


async def test_another_site_cannot_have_the_hub_asked_unseen(finder: FakeFinder) -> None:
    unseen = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "image"}
    for path in ("/discover?q=a", MODEL, "/discover/fit?model=a/b"):
        await text(path, unseen, status=403)
    assert finder.queries == []
    await text("/discover", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"})
    await text("/discover", {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Dest": "empty"} | HTMX)
    assert len(finder.queries) == 2


async def test_no_script_or_style_but_our_files(finder: FakeFinder) -> None:
    for path in ("/discover", MODEL):
        response = await AsyncClient().get(path)
        page = response.content.decode()
        assert "default-src 'self'" in response.headers["Content-Security-Policy"]
        assert " style=" not in page
        assert "<style" not in page
        assert "<script>" not in page
