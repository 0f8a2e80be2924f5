"""``disk.models_gb`` holds whatever is fetched at once, left unfinished, or repaired."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from inference.errors import InsufficientStorage
from inference.fetching import JobStatus
from models_admin.quota import ModelsQuota
from tests.material.hub import BIG, COMMIT, MIB, REPO, Hub, HubRepo, nano_files
from tests.models_admin.site import rot, site_on

pytestmark = pytest.mark.django_db(transaction=True)
OTHERS = ["acme/model-a", "acme/model-b"]


@pytest.fixture
def models(tmp_path: Path, hub: Hub) -> Path:
    for number, name in enumerate(OTHERS):
        hub.repos[name] = HubRepo(nano_files(), commit=str(number) * 40)
    return tmp_path / "models"


async def test_of_two_at_once_the_second_is_refused(models: Path, hub: Hub) -> None:
    async with site_on(models) as site:
        size = (await site.fetch(REPO)).total
        quota = site.fetcher._quota = ModelsQuota(int(size * 2.5), [models], site.catalog.all)
        hub.hold(BIG, MIB)
        begun = await asyncio.gather(*(site.fetcher.start(name) for name in OTHERS), return_exceptions=True)
        [job] = [one for one in begun if isinstance(one, JobStatus)]
        [refused] = [one for one in begun if isinstance(one, InsufficientStorage)]
        assert refused.code == "quota_exceeded"
        assert 2 * size <= refused.details["used_bytes"] < 2 * size + MIB
        hub.release()
        assert (await site.fetcher.wait(job.job)).state == "done"
        assert quota.used() == sum(ref.total_bytes for ref in site.catalog.all()) <= quota.limit
        assert sorted(one.state for one in await site.fetcher.jobs()) == ["done", "done", "paused"]
        quota.limit = 4 * size
        again = await site.fetcher.resume(refused.details["job"])
        assert (await site.fetcher.wait(again.job)).state == "done"


async def test_what_was_left_unfinished_counts_for_others_and_not_twice_for_itself(models: Path, hub: Hub) -> None:
    async with site_on(models) as site:
        quota = site.fetcher._quota = ModelsQuota(1 << 40, [models], site.catalog.all)
        hub.hold(BIG, MIB)
        first = await site.fetcher.start(OTHERS[0])
        async with asyncio.timeout(30):
            while (await site.fetcher.status(first.job)).done < MIB:
                await asyncio.sleep(0.01)
        left = await site.fetcher.pause(first.job)
        quota.limit = left.total + MIB // 2
        hub.release()
        with pytest.raises(InsufficientStorage) as refused:
            await site.fetcher.start(OTHERS[1])
        assert refused.value.details["used_bytes"] >= MIB
        assert (await site.fetcher.wait((await site.fetcher.resume(first.job)).job)).state == "done"


async def test_a_model_that_is_repaired_is_counted_once(models: Path, hub: Hub) -> None:
    async with site_on(models) as site:
        size = (await site.fetch(REPO)).total
        rot(models / REPO / COMMIT / BIG)
        assert (await site.verify(REPO)).result["bad"] == [BIG]
        quota = site.fetcher._quota = ModelsQuota(size + MIB, [models], site.catalog.all)
        hub.hold(BIG, MIB)
        job = (await site.fetcher.start(REPO)).job
        await site.fetcher.pause(job)
        with pytest.raises(InsufficientStorage):
            await site.fetcher.start(OTHERS[0])
        hub.release()
        assert (await site.fetcher.wait((await site.fetcher.resume(job)).job)).state == "done"
        assert size <= quota.used() <= quota.limit
