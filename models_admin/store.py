"""Rows of the catalog to and from the inventory database. Blocking: rows are for the catalog's thread only.

Every transaction is one batch, so that it holds SQLite's write lock for milliseconds even with 10,000 models.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from django.db import transaction

from inference.catalog import DiskState, ModelKind
from inference.models_on_disk import FileOnDisk
from models_admin.facts import Facts
from models_admin.file_checks import Basis, Checked, Checks
from models_admin.models import ModelFile, ModelRecord
from models_admin.row import Row
from models_admin.scan import Found
from models_admin.stamp import bounded

_BATCH = 500
_FACTS = ["architecture", "quantization", "weight_bytes", "total_bytes", "context_length", "kv_bytes_per_token"]
_UPDATED = [
    "root",
    "source",
    "repo",
    "revision",
    "variant",
    "format",
    "kind",
    "fingerprint",
    *_FACTS,
    "has_chat_template",
    "template_sha256",
    "parameters",
    "capabilities",
    "licence",
    "mount",
]
_UPDATED += ["disk_state", "problem", "created_at", "last_seen", "vanished_at", "verified_at", "verify_began_at"]
_UPDATED += ["forgotten"]


def load_rows(roots: Sequence[Path]) -> dict[Path, Row]:
    """What is recorded of the models below ``roots``."""
    records = ModelRecord.objects.filter(root__in=[str(root) for root in roots])
    checks = defaultdict[int, dict[str, Checked]](dict)
    for file in ModelFile.objects.exclude(basis="").iterator(chunk_size=2000):
        checks[file.model_id][file.name] = _checked(file)
    return {Path(record.path): _row(record, checks.get(record.pk, {})) for record in records.iterator(chunk_size=2000)}


def load_files(path: Path) -> list[FileOnDisk]:
    """What is recorded of the files of the model in that directory; on any thread."""
    return [
        FileOnDisk(
            name=file.name,
            size=file.size,
            expected=file.sha256_expected,
            actual=file.sha256_actual,
            basis=file.basis,
            sound=file.sound if file.sha256_actual or file.basis else None,
            verified_at=_seconds(file.verified_at),
        )
        for file in ModelFile.objects.filter(model__path=str(path))
    ]


def save_rows(changed: Sequence[Row], roots: Sequence[Path]) -> None:
    """Write the rows that changed, and that all others below ``roots`` were seen just now."""
    now = datetime.now(UTC)
    for batch in _batches(changed):
        with transaction.atomic():
            ModelRecord.objects.bulk_create(
                [_record(row, now) for row in batch],
                update_conflicts=True,
                unique_fields=["path"],
                update_fields=_UPDATED,
            )
            _save_files([row for row in batch if row.vanished_at is None], now)
    if not roots:
        return
    present = ModelRecord.objects.filter(root__in=[str(root) for root in roots], vanished_at=None)
    present.update(last_seen=now)


def _batches(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    for start in range(0, len(rows), _BATCH):
        yield rows[start : start + _BATCH]


def _save_files(rows: Sequence[Row], now: datetime) -> None:
    """Replace the file rows of these models; a hash stays with a file whose size and time did not change."""
    ids = dict(ModelRecord.objects.filter(path__in=[str(row.found.path) for row in rows]).values_list("path", "id"))
    old = {(file.model_id, file.name): file for file in ModelFile.objects.filter(model_id__in=ids.values())}
    ModelFile.objects.filter(model_id__in=ids.values()).delete()
    fresh = [file for row in rows for file in _files(row, ids[str(row.found.path)], now)]
    for file in fresh:
        before = old.get((file.model_id, file.name))
        if before and not file.sha256_actual and (before.size, before.mtime_ns) == (file.size, file.mtime_ns):
            file.sha256_actual, file.verified_at = before.sha256_actual, before.verified_at
    ModelFile.objects.bulk_create(fresh)


def _files(row: Row, model_id: int, now: datetime) -> list[ModelFile]:
    hashes = row.hashes or {}
    verified = row.disk_state == "verified"
    files = [
        ModelFile(
            model_id=model_id,
            name=name,
            size=file.size,
            mtime_ns=file.mtime_ns,
            sha256_expected=hashes.get(name, ""),
            sha256_actual=hashes.get(name, "") if verified else "",
            verified_at=now if verified and name in hashes else None,
        )
        for name, file in {file.name: file for file in row.facts.files}.items()
        if name not in row.checks
    ]
    return files + [_file(check, model_id) for check in row.checks.values()]


def _file(check: Checked, model_id: int) -> ModelFile:
    return ModelFile(
        model_id=model_id,
        name=check.name,
        size=check.size,
        mtime_ns=check.mtime_ns,
        sha256_expected=check.expected,
        sha256_actual=check.sha256,
        verified_at=datetime.fromtimestamp(check.at, UTC),
        basis=check.basis,
        sound=check.sound,
    )


def _checked(file: ModelFile) -> Checked:
    at = file.verified_at.timestamp() if file.verified_at else 0.0
    basis = cast(Basis, file.basis)
    name, size, time = file.name, file.size, file.mtime_ns
    return Checked(name, size, time, file.sha256_actual, basis, file.sound, at, file.sha256_expected)


def _record(row: Row, now: datetime) -> ModelRecord:
    found, facts = row.found, row.facts
    return ModelRecord(
        path=str(found.path),
        root=str(found.root),
        source=found.source,
        repo=found.repo,
        revision=found.revision,
        kind=facts.kind,
        fingerprint=row.stamp and f"{row.salt}:{row.stamp}",
        architecture=facts.architecture,
        quantization=facts.quantization or "",
        weight_bytes=bounded(facts.weight_bytes),
        total_bytes=bounded(facts.total_bytes),
        context_length=bounded(facts.context_length),
        kv_bytes_per_token=bounded(facts.kv_bytes_per_token),
        has_chat_template=facts.has_chat_template,
        template_sha256=facts.template_sha256,
        parameters=bounded(facts.parameters),
        capabilities=list(facts.capabilities),
        licence=facts.licence,
        mount=found.mount,
        disk_state=row.disk_state,
        problem=row.problem or "",
        created_at=datetime.fromtimestamp(found.created, UTC),
        first_seen=now,
        last_seen=now,
        vanished_at=_moment(row.vanished_at),
        verified_at=_moment(row.verified_at),
        verify_began_at=_moment(row.verify_began),
        forgotten=row.forgotten,
    )


def _moment(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


def _seconds(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment else None


def _row(record: ModelRecord, checks: Checks) -> Row:
    salt, _, stamp = record.fingerprint.rpartition(":")
    found = Found(
        path=Path(record.path),
        root=Path(record.root),
        source=record.source,
        repo=record.repo,
        revision=record.revision,
        created=int(record.created_at.timestamp()),
        fingerprint=stamp,
        mount=record.mount,
    )
    facts = Facts(
        architecture=record.architecture,
        quantization=record.quantization or None,
        weight_bytes=record.weight_bytes,
        total_bytes=record.total_bytes,
        context_length=record.context_length,
        kv_bytes_per_token=record.kv_bytes_per_token,
        has_chat_template=record.has_chat_template,
        template_sha256=record.template_sha256,
        parameters=record.parameters,
        capabilities=tuple(record.capabilities),
        licence=record.licence,
        kind=cast(ModelKind, record.kind),
    )
    state = cast(DiskState, record.disk_state)
    # Which files of a corrupt one are bad is no column: it is examined again.
    salt = "" if state == "corrupt" else salt
    row = Row(found, facts, state, record.problem or None, _seconds(record.vanished_at), salt=salt, checks=checks)
    times = (_seconds(record.verified_at), _seconds(record.verify_began_at))
    return replace(row, verified_at=times[0], verify_began=times[1], forgotten=record.forgotten)
