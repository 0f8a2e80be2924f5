"""Models that are on the disk twice: the same weights by their hashes, or one revision in two places. Blocking."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

from django.db.models import Count

from inference.catalog import ModelRef
from inference.models_on_disk import Duplicate
from models_admin.models import ModelFile

SMALLEST = 1 << 20
"""Smaller files are the same in many models, and saving them is worth nobody's time."""
_THERE = ("adopted", "verified", "corrupt", "partial")


def duplicates(models: Sequence[ModelRef]) -> list[Duplicate]:
    """Groups of models that keep the same content, the most to be saved first. Hard links and links save nothing."""
    there = {str(ref.path): ref for ref in models if ref.disk_state in _THERE}
    found = _same_content(there)
    told = {frozenset(group.paths) for group in found}
    found += [group for group in _same_revision(there.values()) if frozenset(group.paths) not in told]
    return sorted(found, key=lambda group: (-group.bytes, group.models))


def _same_content(there: dict[str, ModelRef]) -> list[Duplicate]:
    """By the SHA-256 of what was read or signed here; what only is expected may not be what lies there."""
    read = ModelFile.objects.exclude(sha256_actual="").filter(size__gte=SMALLEST, model__vanished_at=None)
    twice = read.values("sha256_actual").annotate(times=Count("id")).filter(times__gt=1).values("sha256_actual")
    rows = read.filter(sha256_actual__in=twice).order_by("sha256_actual", "model__path")
    by_models = defaultdict[tuple[str, ...], int](int)
    listed = rows.values_list("sha256_actual", "model__path", "name").iterator(chunk_size=2000)
    for _, group in groupby(listed, key=lambda row: row[0]):
        places = [(path, os.path.join(path, name)) for _, path, name in group if path in there]
        saved = _more_than_one(place for _, place in places)
        paths = tuple(sorted({path for path, _ in places}))
        if saved and len(paths) > 1:
            by_models[paths] += saved
    return [_told([there[path] for path in paths], saved, "content") for paths, saved in by_models.items()]


def _same_revision(models: Iterable[ModelRef]) -> list[Duplicate]:
    """One revision in two directories; where nobody tells the revision, the name and the size of the weights."""
    groups = defaultdict[tuple[str, str], list[ModelRef]](list)
    for ref in models:
        if ref.weight_bytes:
            name = ref.id.partition("@")[0].lower()
            groups[name, ref.revision or str(ref.weight_bytes)].append(ref)
    found = []
    for group in groups.values():
        saved = _more_than_one(*[_files(ref.path) for ref in group]) if len(group) > 1 else 0
        if saved:
            found.append(_told(group, saved, "revision"))
    return found


def _files(directory: Path) -> list[str]:
    try:
        with os.scandir(directory) as entries:
            return [entry.path for entry in entries if entry.name.endswith((".safetensors", ".gguf"))]
    except OSError:
        return []


def _more_than_one(*places: Iterable[str]) -> int:
    """Bytes of all files but those of the largest copy; files with one inode are one."""
    sizes = dict[tuple[int, int], int]()
    copies = list[int]()
    for copy in places:
        own = 0
        for path in copy:
            try:
                status = os.stat(path)
            except OSError:
                continue
            key = (status.st_dev, status.st_ino)
            if key not in sizes:
                sizes[key] = status.st_blocks * 512
                own += sizes[key]
                if len(places) == 1:
                    copies.append(sizes[key])
        if len(places) > 1:
            copies.append(own)
    return sum(copies) - max(copies, default=0)


def _told(group: Sequence[ModelRef], saved: int, why: str) -> Duplicate:
    ordered = sorted(group, key=lambda ref: ref.id)
    return Duplicate(tuple(ref.id for ref in ordered), tuple(str(ref.path) for ref in ordered), saved, why)
