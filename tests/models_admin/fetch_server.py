"""The parts of a server that fetch, as processes that tests kill, each forked from one that has everything loaded.

``python -m tests.models_admin.fetch_server HOME REPO`` reads lines: ``start`` forks a server, which goes on with what
the one before has left, or asks for REPO; ``kill`` kills it and answers ``killed``; ``end`` waits for its end and
answers with what became of the job.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path


async def serve(home: Path, repo: str) -> str:
    from models_admin.catalog import DiskCatalog
    from models_admin.fetch import HubFetcher
    from models_admin.jobs import Jobs

    jobs, catalog = Jobs(), DiskCatalog([home / "models"])
    await jobs.start()
    fetcher = HubFetcher(jobs, catalog, home / "models", keep_free=0)
    await fetcher.go_on()
    known = await fetcher.jobs()
    job = known[0] if known else await fetcher.start(repo)
    ended = await fetcher.wait(job.job)
    await jobs.stop()
    await fetcher.stop()
    catalog.close()
    return f"{ended.state} {ended.message}".strip()


def prepare(home: Path) -> None:
    os.environ["LMX_HOME"] = str(home)
    os.environ["DJANGO_SETTINGS_MODULE"] = "lmx_site.settings"
    import django
    from django.core.management import call_command
    from django.db import connections

    django.setup()
    call_command("migrate", verbosity=0, database="default")
    connections.close_all()
    from models_admin import catalog, fetch  # noqa: F401 # loaded before the fork


def answer(word: str) -> None:
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


def main() -> None:
    home, repo, server = Path(sys.argv[1]), sys.argv[2], 0
    prepare(home)
    for line in sys.stdin:
        match line.strip():
            case "start":
                server = os.fork()
                if not server:
                    answer(asyncio.run(serve(home, repo)))
                    os._exit(0)
            case "kill":
                os.kill(server, signal.SIGKILL)
                os.waitpid(server, 0)
                answer("killed")
            case "end":
                os.waitpid(server, 0)


if __name__ == "__main__":
    main()
