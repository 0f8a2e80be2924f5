"""One model as the catalog holds it in memory: what the scan found, what the files say, what is wrong."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field, replace

from inference.catalog import DiskState, ModelRef
from models_admin.architectures import supported_architectures
from models_admin.facts import Facts, is_hidden, read_facts
from models_admin.file_checks import Checks, all_published, complaints, still_true, worded
from models_admin.manifest import NAME, Manifest, read_manifest
from models_admin.scan import Found

_WITH_FOLDERS = 2
"""The version of a manifest from which on it names the files in folders too."""
_READER_VERSION = 5
_SALT = f"{_READER_VERSION}.{zlib.crc32(' '.join(sorted(supported_architectures() or ())).encode()):x}"
"""Changes when other facts would be read from the same files: a new reader, another mlx-lm."""


@dataclass(frozen=True, slots=True)
class Row:
    """``found.files`` is empty (``facts.files`` has them). ``hashes`` are the published SHA-256 by file name.

    ``vanished_at`` is in seconds since the epoch, as are ``verified_at``, when all files were last found sound, and
    ``verify_began``, of a verification that has not ended. ``checks`` are those that still hold; ``bad`` names the
    files that are not what they should be. ``forgotten`` is the fingerprint of a model that its owner wants hidden.
    """

    found: Found
    facts: Facts
    disk_state: DiskState = "adopted"
    problem: str | None = None
    vanished_at: float | None = None
    hashes: dict[str, str] | None = None
    salt: str = _SALT
    checks: Checks = field(default_factory=dict)
    bad: tuple[str, ...] = ()
    verified_at: float | None = None
    verify_began: float | None = None
    forgotten: str = ""

    @property
    def is_hidden(self) -> bool:
        """Its owner took it off the list, and its files are still those."""
        return bool(self.forgotten) and self.forgotten == self.found.fingerprint

    @property
    def stamp(self) -> str:
        """The fingerprint that the facts belong to; empty when another reader made them."""
        return self.found.fingerprint if self.salt == _SALT else ""

    def age(self) -> tuple[int, int]:
        """For ranking revisions: the current one first, then the newest."""
        return (not self.found.current, -self.found.created)

    def ref(self) -> ModelRef:
        """The model as the engine sees it; ``id`` is the repository until ``Names`` gives it its own."""
        found, facts = self.found, self.facts
        return ModelRef(
            id=found.repo,
            path=found.path,
            source=found.source,
            revision=found.revision or None,
            architecture=facts.architecture,
            quantization=facts.quantization,
            weight_bytes=facts.weight_bytes,
            context_length=facts.context_length,
            kv_bytes_per_token=facts.kv_bytes_per_token,
            created=found.created,
            disk_state=self.disk_state,
            problem=self.problem,
            kind=facts.kind,
            bad_files=self.bad,
            verified_at=self.verified_at,
            parameters=facts.parameters,
            capabilities=facts.capabilities,
            licence=facts.licence,
            template_sha256=facts.template_sha256,
            total_bytes=facts.total_bytes,
        )


def examine(found: Found, old: Row | None = None) -> Row:
    """Read the files of a directory that is new or changed; what ``old`` knew of files that did not change is kept."""
    facts = read_facts(found.path, found.root)
    manifest = read_manifest(found.path)
    source = manifest.source if manifest else found.source
    checks = still_true(found.files, old.checks) if old else {}
    wrong = complaints(found.files, manifest, checks)
    problem, signed = facts.problem, 0.0
    if wrong:
        state: DiskState = "corrupt"
        problem = worded(wrong, source, found.repo, found.revision)
    elif manifest is not None and _unchanged(found, manifest):
        state, signed = "verified", _written(found) / 1e9
    elif all_published(found.files, NAME, checks):
        state = "verified"
    else:
        state = "partial" if facts.incomplete and manifest is None else "adopted"
    row = Row(replace(found, source=source, files=()), facts, state, problem, checks=checks, bad=tuple(wrong))
    if manifest is not None:
        row = replace(row, hashes={name: entry.sha256 for name, entry in manifest.files.items()})
    # Who fetched the model had verified it when the manifest was written.
    verified_at = max(signed, (old.verified_at if old else None) or 0) or None
    return replace(
        row,
        verified_at=verified_at,
        verify_began=old.verify_began if old else None,
        # What was deleted and is there again was put there: a backup brings even the times back.
        forgotten=old.forgotten if old and old.disk_state != "absent" else "",
    )


def vanished(row: Row, *, offline: bool, now: float) -> Row:
    """The row of a model whose directory (or whole volume) is not there."""
    if offline:
        state: DiskState = "offline"
        problem = f"its volume is not mounted, or cannot be read: {row.found.root}"
    else:
        state, problem = "absent", f"its directory is gone: {row.found.path}"
    if row.disk_state == state:
        return row
    return replace(row, disk_state=state, problem=problem, vanished_at=row.vanished_at or now)


def _unchanged(found: Found, manifest: Manifest) -> bool:
    """Whether all files are those of the manifest and none was written after it; their sizes are known to agree.

    Hidden files do not count: the Finder leaves such.
    """
    written = _written(found)
    files = [file for file in found.files if file.name != NAME and not is_hidden(file.name)]
    unnamed = {file.name for file in files} - set(manifest.files)
    if manifest.version < _WITH_FOLDERS:
        unnamed = {name for name in unnamed if "/" not in name}
    return not unnamed and all(file.mtime_ns <= written for file in files)


def _written(found: Found) -> int:
    """When the manifest was, in nanoseconds; 0 without one."""
    return next((file.mtime_ns for file in found.files if file.name == NAME), 0)
