"""The page Transfers through Django: what it makes of what it is sent, and who is let in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from django.test import AsyncClient

from inference.api import deps
from inference.errors import Conflict
from inference.fetching import FileStatus, JobStatus
from lmx_site import access
from monitoring.hub import Hub, set_hub

HTMX = {"HX-Request": "true"}
RUNNING = JobStatus(1, "fetch", "org/<b>one", "running", "download", 1 << 20, 5 << 30, message="waits 8 s: <i>")
WORKS = ("pause", "resume", "cancel")


class Fetches:
    """Has the jobs it is given; refuses everything for which there is a ``refusal``."""

    def __init__(self, *known: JobStatus) -> None:
        self.known, self.asked, self.refusal = list(known), list[tuple[str, object]](), ""

    async def start(
        self, repo: str, revision: str | None = None, quantization: str | None = None, *, auto_load: bool = False
    ) -> JobStatus:
        self.asked.append((repo, auto_load))
        return await self.status(1)

    async def jobs(self, limit: int = 100) -> list[JobStatus]:
        return self.known[:limit]

    async def wait(self, job: int) -> JobStatus:
        return await self.status(job)

    async def status(self, job: int) -> JobStatus:
        if self.refusal:
            raise Conflict(self.refusal)
        return self.known[0]

    async def pause(self, job: int) -> JobStatus:
        self.asked.append(("pause", job))
        return await self.status(job)

    async def resume(self, job: int) -> JobStatus:
        self.asked.append(("resume", job))
        return await self.status(job)

    async def cancel(self, job: int) -> JobStatus:
        self.asked.append(("cancel", job))
        return await self.status(job)


@pytest.fixture
def fetches() -> Iterator[Fetches]:
    found = Fetches(RUNNING)
    deps.configure(fetcher=found)
    set_hub(Hub())
    yield found
    set_hub(None)
    deps.configure()


async def text(path: str = "/transfers") -> str:
    response = await AsyncClient().get(path)
    assert response.status_code == 200
    return str(response.content.decode())


async def test_what_is_shown_is_escaped_and_in_its_group(fetches: Fetches) -> None:
    files = (FileStatus('<"x>.json', 3000, 1024),)
    fetches.known = [
        replace(RUNNING, files=files),
        replace(RUNNING, job=2, state="queued", place=1, subject="org/two", message="waits for its turn"),
        replace(RUNNING, job=3, state="failed", message="It <u>cannot</u> be."),
        replace(RUNNING, job=4, kind="verify", unit="files", done=1, total=3, message=""),
    ]
    page = await text()
    assert "org/&lt;b&gt;one" in page
    assert not {tag for tag in ("<b>", "<i>", "<u>", "<x>") if tag in page}
    assert "1 KB of 3 KB" in page
    assert page.index("Under way") < page.index('data-job="1"') < page.index('data-job="2"') < page.index("Failed")
    assert "1 of 3 files" in page
    assert 'id="pause-4"' not in page
    assert 'id="cancel-4"' in page
    assert "Try again: org" in page


async def test_only_what_moves_or_has_a_size_has_a_bar_and_what_is_here_leads_to_its_page(fetches: Fetches) -> None:
    fetches.known = [
        replace(RUNNING, job=2, state="queued", subject="org/two", done=0, total=0),
        replace(RUNNING, job=3, state="paused", subject="org/three", done=0, total=0),
    ]
    page = await text()
    assert "<progress" not in page
    assert "/models/one" not in page
    fetches.known = [
        replace(RUNNING, job=4, done=0, total=0),
        replace(RUNNING, job=5, state="paused", subject="org/five", done=1, total=2),
        replace(RUNNING, job=6, state="done", subject="org/six"),
    ]
    page = await text()
    assert page.count("<progress") == 2
    assert page.count("/models/one?model_id=org%2Fsix") == 1


async def test_without_jobs_the_way_to_some_is_shown(fetches: Fetches) -> None:
    fetches.known = []
    assert 'href="/discover"' in await text("/transfers/list")


async def test_buttons_do_what_they_say_and_refusals_are_words(fetches: Fetches) -> None:
    client = AsyncClient()
    for work in WORKS:
        answer = await client.post(f"/transfers/{work}", {"job": "7"})
        assert (answer.status_code, answer.headers["Location"]) == (302, "/transfers")
    assert fetches.asked == [(work, 7) for work in WORKS]
    answer = await client.post("/transfers/start", {"model": " org/new ", "auto_load": "yes"}, headers=HTMX)
    assert (answer.status_code, fetches.asked[-1]) == (200, ("org/new", True))
    fetches.refusal = "it is <done>"
    for path, fields in [("start", {"model": "org/<x>"}), ("pause", {"job": "1"})]:
        for headers in (HTMX, {}):
            said = (await client.post(f"/transfers/{path}", fields, headers=headers)).content.decode()
            assert "it is &lt;done&gt;" in said
    assert 'value="org/&lt;x&gt;"' in (await client.post("/transfers/start", {"model": "org/<x>"})).content.decode()


@pytest.mark.parametrize("job", ["", "x", "-1", "1.5", "²", "9" * 19, "1; drop"])
async def test_what_is_no_number_is_refused(fetches: Fetches, job: str) -> None:
    for work in WORKS:
        assert (await AsyncClient().post(f"/transfers/{work}", {"job": job})).status_code == 400
    assert fetches.asked == []


async def test_nothing_and_too_much_are_refused(fetches: Fetches) -> None:
    client = AsyncClient()
    assert "Write the name" in (await client.post("/transfers/start", {"model": " "})).content.decode()
    assert (await client.post("/transfers/start", {"model": "x" * 513})).status_code == 400
    assert fetches.asked == []


async def test_while_the_server_starts_or_stops(fetches: Fetches) -> None:
    deps.configure()
    assert "starting or stopping" in await text()
    for path, fields in [("start", {"model": "a/b"}), ("pause", {"job": "1"})]:
        assert "starting" in (await AsyncClient().post(f"/transfers/{path}", fields)).content.decode()


async def test_only_by_the_owner_by_post_and_with_a_token(fetches: Fetches) -> None:
    strict = AsyncClient(enforce_csrf_checks=True)
    for work in (*WORKS, "start"):
        assert (await strict.post(f"/transfers/{work}", {"job": "1", "model": "a/b"})).status_code == 403
        assert (await AsyncClient().get(f"/transfers/{work}")).status_code == 405
    access.set_keys(access.Keys.of("client", "owner", trust_lan=False))
    client = AsyncClient()
    for path in ("/transfers", "/transfers/list"):
        assert (await client.get(path)).status_code in (302, 401, 403)
    for work in WORKS:
        assert (await client.post(f"/transfers/{work}", {"job": "1"})).status_code in (302, 401, 403)
    assert fetches.asked == []
