"""Brings the demo model to a machine that has none, while the server already answers, and says how far it is."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models_admin.catalog import DiskCatalog
    from models_admin.job_protocol import Progress
    from models_admin.job_runner import Runner

logger = logging.getLogger(__name__)

NAME = "SmolLM2-135M-Instruct"
_STEPS = 4


class ProgressLines:
    """Turns a stream of progress into few lines: one per quarter of a phase, the first once there is something."""

    def __init__(self, say: Callable[[str], None], describe: Callable[[Progress], str]) -> None:
        self._say = say
        self._describe = describe
        self._last: tuple[str, int] | None = None

    def show(self, progress: Progress) -> None:
        step = progress.done * _STEPS // progress.total if progress.total else _STEPS
        if step and (progress.phase, step) != self._last:
            self._last = (progress.phase, step)
            self._say(f"  {self._describe(progress)}")


async def bring_demo(home: Path, catalog: DiskCatalog, jobs: Runner, say: Callable[[str], None]) -> str | None:
    """The model's id once it can be loaded; None when it could not be brought, which is said."""
    from models_admin.demo import ensure_demo
    from models_admin.job_runner import JobFailed
    from models_admin.job_words import describe

    lines = ProgressLines(say, describe)
    say(f"No model yet: bringing {NAME} to try (downloads 90 MB, takes 0.5 GB, once)")
    try:
        path = await ensure_demo(home, jobs, lines.show)
    except JobFailed as failure:
        logger.warning("the demo model could not be brought: %s", failure.message)
        say(f"  the demo model could not be brought: {failure.message}")
        say(f"  put a model (config.json and *.safetensors) below {home / 'models'}; it is found within half a minute")
        return None
    await catalog.refresh()
    return next((ref.id for ref in catalog.usable() if ref.path == path), None)
