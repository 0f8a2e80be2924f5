"""Bodies of LM Studio's own routes."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from inference.protocols.validation import WireModel

_Name = Annotated[str, Field(min_length=1, max_length=512)]

# They tune speed or memory, which is done here without them.
LOAD_NO_EFFECT = frozenset({"eval_batch_size", "flash_attention", "offload_kv_cache_to_gpu", "parallel"})
LOAD_REFUSED: dict[str, tuple[Any, ...]] = {"num_experts": (None, 0)}


class InstanceLoad(WireModel):
    """``POST /api/v1/models/load``. ``ttl``: idle seconds after which it is unloaded."""

    model: _Name
    context_length: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    echo_load_config: bool | None = None
    ttl: Annotated[float, Field(ge=1, le=31_536_000, allow_inf_nan=False)] | None = None


class InstanceUnload(WireModel):
    """``POST /api/v1/models/unload``."""

    instance_id: _Name


class ModelDownload(WireModel):
    """``POST /api/v1/models/download``. ``model`` is ``org/name`` or an address at Hugging Face."""

    model: _Name
    quantization: Annotated[str, Field(min_length=1, max_length=64)] | None = None
