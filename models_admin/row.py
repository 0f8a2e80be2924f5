"""One model as the catalog holds it in memory: what the scan found, what the files say, what is wrong."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

from inference.catalog import DiskState, ModelRef
from models_admin.architectures import supported_architectures
from models_admin.facts import Facts, read_facts
from models_admin.manifest import NAME, Manifest, read_manifest
from models_admin.scan import Found

_READER_VERSION = 3
_SALT = f"{_READER_VERSION}.{zlib.crc32(' '.join(sorted(supported_architectures() or ())).encode()):x}"
"""Changes when other facts would be read from the same files: a new reader, another mlx-lm."""


@dataclass(frozen=True, slots=True)
class Row:
    """``found.files`` is empty (``facts.files`` has them). ``hashes`` are the published SHA-256 by file name.

    ``vanished_at`` is in seconds since the epoch.
    """

    found: Found
    facts: Facts
    disk_state: DiskState = "adopted"
    problem: str | None = None
    vanished_at: float | None = None
    hashes: dict[str, str] | None = None
    salt: str = _SALT

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
        )


def examine(found: Found) -> Row:
    """Read the files of a directory that is new or changed."""
    facts = read_facts(found.path, found.root)
    manifest = read_manifest(found.path)
    if manifest is None:
        state: DiskState = "partial" if facts.incomplete else "adopted"
        return Row(replace(found, files=()), facts, state, facts.problem)
    hashes = {name: entry.sha256 for name, entry in manifest.files.items()}
    state, complaint = _compare(found, manifest)
    found = replace(found, source=manifest.source, files=())
    return Row(found, facts, state, facts.problem or complaint, hashes=hashes)


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


def _compare(found: Found, manifest: Manifest) -> tuple[DiskState, str | None]:
    """A directory is verified while sizes agree with its manifest and nothing was written after it."""
    files = {file.name: file for file in found.files}
    for name, entry in sorted(manifest.files.items()):
        if name not in files:
            return "corrupt", f"{name} is missing"
        if files[name].size != entry.size:
            return "corrupt", f"{name} has {files[name].size} bytes, not the {entry.size} that were verified"
    written = files[NAME].mtime_ns if NAME in files else 0
    changed = any(file.mtime_ns > written or name not in manifest.files for name, file in files.items() if name != NAME)
    return ("adopted" if changed else "verified"), None
