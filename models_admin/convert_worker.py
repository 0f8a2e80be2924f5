"""The job program that makes an MLX model of a GGUF file, or quantises a model.

Parameters: ``source`` (a GGUF file or a model's directory), ``target`` (the directory that the result becomes),
``repo`` (its name), ``bits`` (None: a GGUF file's own), ``group_size``, ``dtype`` (None: what suits), ``about`` (where
the source came from: ``repo``, ``revision``, ``source``), ``hashes`` (published SHA-256 of the source's files by name),
``keep_free`` (bytes that must stay free on the disk). Phases: ``check`` (bytes of the source), ``convert`` (tensors),
``tokenizer``, ``sign`` (bytes of the result).

Everything is written to ``.NAME.lmx-converting`` beside the target, where no scan looks, and renamed there last.
"""

from __future__ import annotations

import os
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import Timeout

from inference.model_files import weight_names
from models_admin.convert_place import converting
from models_admin.facts import read_facts
from models_admin.fetch_lock import locked
from models_admin.fetch_names import take
from models_admin.job_child import JobError, Reporter, run_job
from models_admin.manifest import Manifest, sha256_file, sign, sync

SOURCE = "converted"
_TOOLS = ("opta-lmx", "mlx", "mlx-lm")
_MADE = ("config.json", "model.safetensors.index.json")
_LOCK_S = 10.0


def convert(params: dict[str, Any], report: Reporter) -> dict[str, Any]:
    """Convert; the result has ``path``, ``repo``, ``bytes`` and ``origin``. Raises ``JobError``."""
    target = Path(params["target"])
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with locked(target, _LOCK_S):
            return _alone(params, target, report)
    except Timeout:
        raise JobError(f"Another process is making {target}.", code="busy") from None


def _alone(params: dict[str, Any], target: Path, report: Reporter) -> dict[str, Any]:
    if os.path.lexists(target):
        raise JobError(f"{target} is there already.", code="name_taken")
    partial = converting(target)
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    partial.mkdir()
    try:
        origin = _make(params, partial, report)
        if problem := read_facts(partial, target.parent.parent).problem:
            raise JobError(f"What was made cannot be used: {problem}.", code="unsupported_model")
        signed = Manifest(SOURCE, params["repo"], "", {}, _in_words(origin), made=origin)
        size = sign(partial, signed, lambda done, total: report("sign", done, total))
        partial.rename(target)
        sync(target.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return {"path": str(target), "repo": params["repo"], "bytes": size, "origin": origin}


def _make(params: dict[str, Any], partial: Path, report: Reporter) -> dict[str, Any]:
    source = Path(params["source"])
    files = [source] if source.is_file() else [source / name for name in weight_names(set(os.listdir(source)))]
    hashes = _hashed(files, params["hashes"], report)
    about = {"from": {**params["about"], "files": hashes}, "bits": params["bits"], "group_size": params["group_size"]}
    if source.is_file():
        dtype = _from_gguf(source, partial, params, report)
    else:
        dtype = _quantise(source, partial, params, report)
        _copy_others(source, partial)
    return about | {"dtype": dtype, "tools": {name: _version(name) for name in _TOOLS}}


def _hashed(files: list[Path], expected: dict[str, str], report: Reporter) -> dict[str, str]:
    """The SHA-256 of what is converted; what is not what was published is not made into something that looks sound."""
    total, done, found = sum(file.stat().st_size for file in files), 0, dict[str, str]()

    def on_bytes(count: int) -> None:
        nonlocal done
        done += count
        report("check", done, total)

    report("check", 0, total)
    for file in files:
        found[file.name] = sha256_file(file, on_bytes)
        if expected.get(file.name, found[file.name]) != found[file.name]:
            raise JobError(
                f"{file.name} has another content than was published, so it is not converted; verify the model.",
                code="model_corrupt",
                details={"files": [file.name]},
            )
    return found


def _from_gguf(source: Path, partial: Path, params: dict[str, Any], report: Reporter) -> str:
    """With the file's own quantization, or through plain weights with another one."""
    # Late, because they load MLX: checking comes first and must not wait for it.
    from models_admin.convert_gguf import ConversionError
    from models_admin.convert_gguf import convert as from_gguf
    from models_admin.convert_mlx import has_gpu

    bits, dtype = params["bits"], params["dtype"] or ("float16" if has_gpu() else "float32")

    def progress(phase: str, done: int, total: int) -> None:
        report(phase, done, total, "tensors" if phase == "convert" else "files")

    plain = partial if bits is None else partial / "plain"
    plain.mkdir(exist_ok=True)
    try:
        from_gguf(source, plain, dtype=dtype, dequantize=bits is not None, progress=progress)
    except (ConversionError, RuntimeError) as error:
        raise JobError(f"{source.name} cannot be converted: {error}", code="unsupported_model") from error
    if bits is not None:
        _quantise(plain, partial, params | {"dtype": dtype}, report)
        _copy_others(plain, partial)
        shutil.rmtree(plain)
    return str(dtype)


def _quantise(source: Path, partial: Path, params: dict[str, Any], report: Reporter) -> str:
    from models_admin.convert_mlx import CannotQuantise, quantise

    def step(done: int, total: int, file: Path | None) -> None:
        report("convert", done, total, "tensors")
        free = shutil.disk_usage(partial).free
        if free < params["keep_free"]:
            raise JobError(
                f"The disk has only {free} bytes left and {params['keep_free']} must stay free. Free some space and "
                "start it again.",
                code="insufficient_storage",
                details={"free_bytes": free, "keep_free_bytes": params["keep_free"]},
            )

    try:
        return quantise(
            source, partial, bits=params["bits"], group_size=params["group_size"], dtype=params["dtype"], step=step
        )
    except (CannotQuantise, RuntimeError, ValueError) as error:
        raise JobError(f"It cannot be quantised: {error}", code="unsupported_model") from error


def _copy_others(source: Path, partial: Path) -> None:
    """Tokenizer, template, licence as they are; never code, weights, or what was made anew."""
    for name in take(os.listdir(source)):
        if name.endswith(".safetensors") or name in _MADE or not (source / name).is_file():
            continue
        shutil.copyfile(source / name, partial / name)


def _in_words(origin: dict[str, Any]) -> str:
    source = origin["from"]
    name = f"{source['repo']}@{source['revision']}" if source["revision"] else source["repo"]
    width = f"{origin['bits']} bit in groups of {origin['group_size']}" if origin["bits"] else "its own quantization"
    return f"{name}, converted to MLX with {width} and {origin['dtype']} for the rest"[:1024]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # a checkout that was never installed
        return "unknown"


if __name__ == "__main__":
    run_job(convert)
