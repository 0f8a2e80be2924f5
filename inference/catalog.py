"""What the engine needs to know of the models on disk. ``models_admin`` implements ``Catalog``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from inference.model_settings import NO_SETTINGS, ModelSettings

ModelKind = Literal["llm", "embeddings"]
DiskState = Literal["absent", "partial", "adopted", "verified", "corrupt", "offline"]


@dataclass(frozen=True, slots=True)
class ModelRef:
    """One model on disk.

    ``id`` is the canonical name ``org/name[@rev][:variant]``, or a directory's name for a local one. ``weight_bytes``
    is the sum of the weight files; ``kv_bytes_per_token`` what one token of context adds (0 when unknown).
    ``problem`` says why the model cannot be loaded (missing, truncated, unknown architecture), None when it can.
    ``kind`` says what it makes: text, or vectors. ``bad_files`` names the files of a corrupt one; ``verified_at``, in
    seconds since the epoch, is when all its files were last found sound. ``settings`` are what its owner keeps for it.
    ``parameters`` is their number, 0 when unknown; ``capabilities`` are those that its files tell, by the names of
    ``inference.ipc.Capabilities``; ``template_sha256`` is empty without a chat template; ``total_bytes`` are all its
    files.
    """

    id: str
    path: Path
    source: str = "local"
    revision: str | None = None
    variant: str | None = None
    format: str = "mlx"
    architecture: str = ""
    quantization: str | None = None
    weight_bytes: int = 0
    context_length: int = 0
    kv_bytes_per_token: int = 0
    created: int = 0
    aliases: tuple[str, ...] = field(default=())
    disk_state: DiskState = "adopted"
    problem: str | None = None
    kind: ModelKind = "llm"
    bad_files: tuple[str, ...] = ()
    verified_at: float | None = None
    settings: ModelSettings = field(default=NO_SETTINGS, hash=False)
    parameters: int = 0
    capabilities: tuple[str, ...] = ()
    licence: str = ""
    template_sha256: str = ""
    total_bytes: int = 0


class Catalog(Protocol):
    """Answers from memory; never touches disk or database on the caller's thread."""

    def all(self) -> list[ModelRef]:
        """Every known model, sorted by id."""
        ...

    def resolve(self, name: str) -> ModelRef:
        """The model of that name, alias, or unambiguous short name; '', 'default' and 'local-model' are the default.

        Raises ``inference.errors.ModelNotFound`` whose message names the nearest known model.
        """
        ...

    async def recheck(self, ref: ModelRef) -> ModelRef:
        """The model after a look at the sizes and times of its files now, in a thread; what changed is examined."""
        ...
