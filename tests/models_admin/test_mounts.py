"""A volume that is away, with a real one: the mount point stays and is empty."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live.process import ROOT
from tests.material import nano_model

PROGRAM = """
import asyncio, shutil, subprocess, sys
from pathlib import Path
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "lmx_site.settings"
import django
django.setup()
from django.core.management import call_command
from models_admin.catalog import DiskCatalog

home, nano = Path(sys.argv[1]), sys.argv[2]
volume, plain = home / "volume", home / "plain"

def mount():
    subprocess.run(["mount", "-t", "tmpfs", "none", volume], check=True)
    shutil.copytree(nano, volume / "org" / "kept")

async def states(catalog):
    await catalog.refresh()
    print(*(f"{ref.id}={ref.disk_state}" for ref in catalog.all()))

def opened():
    return DiskCatalog([volume, plain], aliases={"mine": "org/kept"})

async def main():
    catalog = opened()
    await states(catalog)
    subprocess.run(["umount", volume], check=True)
    shutil.rmtree(plain / "gone")
    await states(catalog)
    print(catalog.resolve("mine").disk_state)
    catalog.close()
    catalog = opened()  # a server that was started meanwhile
    await states(catalog)
    mount()
    await states(catalog)
    shutil.rmtree(volume / "org")
    await states(catalog)
    catalog.close()

volume.mkdir()
shutil.copytree(nano, plain / "gone")
mount()
call_command("migrate", verbosity=0, database="default")
asyncio.run(main())
"""


def run_alone(program: str, tmp_path: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Where it may mount."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("name spaces are not to be had here")
    return subprocess.run(
        [unshare, "-rm", sys.executable, "-c", program, tmp_path, nano_model()],
        env={**os.environ, "LMX_HOME": str(tmp_path), **more},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="volumes are made of memory, in a name space of the test's own")
def test_an_empty_mount_point_is_a_volume_that_is_away(tmp_path: Path) -> None:
    done = run_alone(PROGRAM, tmp_path)
    assert done.stdout.splitlines() == [
        "gone=adopted org/kept=adopted",
        "gone=absent org/kept=offline",
        "offline",
        "gone=absent org/kept=offline",
        "gone=absent org/kept=adopted",
        "gone=absent org/kept=absent",
    ], done.stderr


FETCHING = """
import asyncio, os, shutil, subprocess, sys
from pathlib import Path
os.environ["DJANGO_SETTINGS_MODULE"] = "lmx_site.settings"
import django
django.setup()
from django.core.management import call_command
from inference.errors import LmxError
from models_admin.catalog import DiskCatalog
from models_admin.fetch import HubFetcher
from models_admin.jobs import Jobs
from tests.models_admin.site import Board

volume, models = Path(sys.argv[1]) / "volume", Path(sys.argv[1]) / "volume" / "models"

async def said(models, catalog):
    fetcher = HubFetcher(jobs, catalog, models, keep_free=0, patience=(0.0, 0.0, 0.0))
    try:
        await fetcher.start("acme/new")
    except LmxError as error:
        [job] = await fetcher.jobs()
        print(error.code, job.state, sorted(path.name for path in volume.iterdir()))
    await fetcher.stop()

async def main():
    global jobs
    jobs, catalog = Jobs(Board()), DiskCatalog([models])
    await catalog.refresh()
    subprocess.run(["umount", volume], check=True)
    await said(models, catalog)
    await catalog.refresh()
    await said(models, catalog)
    models.mkdir()  # by another program, below the mount point
    await catalog.refresh()
    await said(models, catalog)
    subprocess.run(["mount", "-t", "tmpfs", "none", volume], check=True)
    await said(models, catalog)
    await jobs.stop()
    catalog.close()

volume.mkdir()
subprocess.run(["mount", "-t", "tmpfs", "none", volume], check=True)
shutil.copytree(sys.argv[2], models / "org" / "kept")
call_command("migrate", verbosity=0, database="default")
asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="volumes are made of memory, in a name space of the test's own")
def test_nothing_is_fetched_to_a_mount_point(tmp_path: Path) -> None:
    done = run_alone(FETCHING, tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    assert done.stdout.splitlines() == [
        "volume_not_mounted paused []",
        "volume_not_mounted paused []",
        "volume_not_mounted paused ['models']",
        "hub_unreachable paused []",
    ], done.stderr
