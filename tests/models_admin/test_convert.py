"""Conversions: real child processes with the real mlx-lm, on nano and tiny."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from inference.errors import Conflict, InsufficientMemory, InsufficientStorage, InvalidRequest, LmxError
from inference.keeping import Conversion, ConvertTo
from models_admin.convert import ModelConverter
from models_admin.convert_place import converting, result_name, sweep
from models_admin.fetch_lock import locked
from models_admin.gguf_header import read_gguf
from models_admin.manifest import read_manifest, sha256_file
from models_admin.orphans import orphans
from tests.live.real import real_server
from tests.material import encoder_model, nano_model, place, tiny_model
from tests.material.gguf import write_gguf
from tests.models_admin.site import WEIGHTS, Site, ask, copy, lmx, rot, site_on

pytestmark = pytest.mark.django_db(transaction=True)

# How far the weights of one model are from those of another, where both have the layer, as a part of their size.
FAR = """
import sys
import mlx.core as mx
from mlx_lm.utils import dequantize_model, load_model
from mlx.utils import tree_flatten
from pathlib import Path
mx.set_default_device(mx.cpu)
ours, theirs = (dict(tree_flatten(dequantize_model(load_model(Path(one))[0]).parameters())) for one in sys.argv[1:3])
assert set(ours) == set(theirs), set(ours) ^ set(theirs)
print(max(float(mx.abs(ours[n] - theirs[n]).max() / mx.abs(theirs[n]).max()) for n in ours))
"""


def far(one: Path, other: Path) -> float:
    done = subprocess.run([sys.executable, "-c", FAR, str(one), str(other)], capture_output=True, text=True, check=True)
    return float(done.stdout)


def converter(site: Site, **more: Any) -> ModelConverter:
    memory: dict[str, Any] = {"free_bytes": more.pop("free", 1 << 40)}
    more = {"keep_free": 0, **more}
    return ModelConverter(
        site.jobs, site.catalog, site.busy, site.models, status=site.fetcher.status, memory=lambda: memory, **more
    )


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """With nano, which was fetched as ``org/model``."""
    copy(tmp_path / "models" / "org" / "model" / "r1", signed=True)
    async with site_on(tmp_path / "models") as found:
        yield found


async def made(found: ModelConverter, source: str, to: ConvertTo, **more: Any) -> Conversion:
    try:
        return await found.wait(await found.convert(source, to, **more))
    finally:
        await found.stop()


@pytest.mark.parametrize(("bits", "most"), [(3, 0.2), (6, 0.03)])
async def test_a_model_is_quantised(site: Site, bits: int, most: float) -> None:
    done = await made(converter(site), "org/model", ConvertTo(bits, 32))
    assert (done.job.state, done.job.message, done.model_id) == ("done", "", f"local/model-{bits}bit-mlx")
    path = Path(done.path)
    assert path == site.models / "local" / f"model-{bits}bit-mlx"
    ref = site.catalog.resolve(done.model_id)
    assert (ref.path, ref.disk_state, ref.quantization, ref.problem) == (path, "verified", f"{bits}bit", None)
    manifest = read_manifest(path)
    assert manifest is not None
    assert {name: sha256_file(path / name) for name in manifest.files} == {
        name: entry.sha256 for name, entry in manifest.files.items()
    }
    origin = {"repo": "org/model", "revision": "r1", "source": "huggingface"}
    assert manifest.made["from"] == origin | {"files": {WEIGHTS: sha256_file(nano_model() / WEIGHTS)}}
    assert (manifest.made["bits"], manifest.made["group_size"], manifest.made["dtype"]) == (bits, 32, "float32")
    assert set(manifest.made["tools"]) == {"opta-lmx", "mlx", "mlx-lm"}
    assert done.origin == manifest.made
    assert manifest.origin == f"org/model@r1, converted to MLX with {bits} bit in groups of 32 and float32 for the rest"
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (path / name).read_bytes() == (nano_model() / name).read_bytes()
    assert far(path, nano_model()) < most
    assert [one.name for one in path.parent.iterdir() if "lock" not in one.name] == [path.name]
    assert (await site.verify(done.model_id)).result["bad"] == []


@pytest.mark.parametrize(("kind", "bits", "most"), [("Q8_0", None, 0.01), ("Q4_0", 4, 0.1), ("F16", 8, 0.02)])
async def test_a_gguf_file_becomes_a_model(
    site: Site, tmp_path: Path, kind: str, bits: int | None, most: float
) -> None:
    file = write_gguf(tiny_model() if kind == "Q4_0" else nano_model(), tmp_path / f"Nice model.{kind}.gguf", kind)
    done = await made(converter(site), str(file), ConvertTo(bits, 32), is_path=True)
    assert (done.job.state, done.job.message) == ("done", "")
    assert done.model_id == ("local/Nice-model-8bit-mlx" if kind == "F16" else "local/Nice-model-mlx")
    ref = site.catalog.resolve(done.model_id)
    own = {"Q8_0": "8bit", "Q4_0": "4bit", "F16": "8bit"}[kind]
    assert (ref.disk_state, ref.quantization, ref.problem) == ("verified", own, None)
    assert done.origin["from"] == {
        "repo": file.name,
        "revision": "",
        "source": str(file),
        "files": {file.name: sha256_file(file)},
    }
    assert far(Path(done.path), tiny_model() if kind == "Q4_0" else nano_model()) < most


async def test_the_same_twice_is_one_job(site: Site) -> None:
    found = converter(site)
    first, second = await asyncio.gather(*(found.convert("org/model", ConvertTo(4, 32)) for _ in range(2)))
    assert first.job.job == second.job.job
    with pytest.raises(Conflict) as taken:
        await found.convert("org/model", ConvertTo(8, 32), name="model-4bit-mlx")
    assert taken.value.code == "name_taken"
    with pytest.raises(LmxError) as many:
        await found.convert("org/model", ConvertTo(8, 32))
    assert many.value.status == 429
    with pytest.raises(Conflict, match="is being converted"):
        await site.keeper.delete("org/model")
    assert (await found.wait(first)).job.state == (await found.wait(second)).job.state == "done"
    with pytest.raises(Conflict) as there:
        await found.convert("org/model", ConvertTo(4, 32))
    assert there.value.code == "name_taken"
    again = await made(converter(site), "local/model-4bit-mlx", ConvertTo(3, 32))
    assert (again.job.state, again.model_id) == ("done", "local/model-3bit-mlx"), "fewer bits of fewer are possible"
    with pytest.raises(InvalidRequest, match="4 bits already"):
        await found.convert("local/model-4bit-mlx", ConvertTo(6))


@pytest.mark.parametrize("how", ["cancelled", "killed"])
async def test_what_ends_early_leaves_nothing(site: Site, how: str) -> None:
    place(tiny_model(), site.models / "org" / "tiny")
    await site.catalog.refresh()
    found = converter(site)
    begun = await found.convert("org/tiny", ConvertTo(4))
    partial = converting(Path(begun.path))
    async with asyncio.timeout(60):
        while not partial.is_dir():
            await asyncio.sleep(0.01)
    if how == "cancelled":
        assert (await site.fetcher.cancel(begun.job.job)).state == "cancelled"
    else:
        [child] = [one for one in psutil.Process().children() if "models_admin.convert_worker" in one.cmdline()]
        child.kill()
        assert (await found.wait(begun)).job.state == "failed"
    await found.stop()
    assert [one.name for one in site.models.glob("local/*") if "lock" not in one.name] == []
    assert (await made(converter(site), "org/tiny", ConvertTo(4))).job.state == "done"


def test_what_a_killed_server_left_is_swept(tmp_path: Path) -> None:
    local = tmp_path / "local"
    for name in (".a.lmx-converting", ".b.lmx-converting", "c"):
        (local / name).mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (local / ".d.lmx-converting").symlink_to(tmp_path / "elsewhere")
    with locked(local / "b"):
        sweep(tmp_path)
    left = sorted(one.name for one in local.iterdir() if "lock" not in one.name)
    assert left == [".b.lmx-converting", ".d.lmx-converting", "c"]
    sweep(tmp_path / "none")


async def test_what_does_not_fit_is_refused_with_the_numbers(site: Site, tmp_path: Path) -> None:
    with pytest.raises(InsufficientStorage) as disk:
        await converter(site, keep_free=1 << 60).convert("org/model", ConvertTo(4))
    assert disk.value.details["needed_bytes"] < 64 << 10
    with pytest.raises(InsufficientMemory) as memory:
        await converter(site, free=1 << 20).convert("org/model", ConvertTo(4))
    assert memory.value.details["needed_bytes"] > memory.value.details["free_bytes"] == 1 << 20
    file = write_gguf(nano_model(), tmp_path / "a.gguf")
    with pytest.raises(InsufficientMemory):
        await converter(site, free=1 << 20).convert(str(file), ConvertTo(4), is_path=True)
    assert not (site.models / "local").exists()


async def test_what_was_published_otherwise_is_not_converted(site: Site) -> None:
    rot(site.models / "org" / "model" / "r1" / WEIGHTS)
    done = await made(converter(site), "org/model", ConvertTo(4, 32))
    assert (done.job.state, done.job.code) == ("failed", "model_corrupt")
    await site.verify("org/model")
    with pytest.raises(LmxError) as corrupt:
        await converter(site).convert("org/model", ConvertTo(4, 32))
    assert corrupt.value.code == "model_corrupt"


async def test_what_cannot_be_converted_is_said(site: Site, tmp_path: Path) -> None:
    nano = nano_model()
    place(encoder_model(), site.models / "org" / "vectors")
    await site.catalog.refresh()
    good = write_gguf(nano, tmp_path / "good.Q8_0.gguf", "Q8_0")
    os.mkfifo(tmp_path / "pipe.gguf")
    (tmp_path / "cut.gguf").write_bytes(good.read_bytes()[:3000])
    (tmp_path / "text.gguf").write_text("hello")
    found = converter(site)
    for path, said in [
        ("good.gguf", "absolute"),
        (str(nano / WEIGHTS), ".gguf"),
        (str(tmp_path / "none.gguf"), "No such file"),
        (str(tmp_path / "pipe.gguf"), "regular file"),
        (str(tmp_path / "cut.gguf"), "cut off"),
        (str(tmp_path / "text.gguf"), "not a GGUF"),
        (str(tmp_path), ".gguf"),
        (str(write_gguf(nano, tmp_path / "qwen.gguf", architecture="qwen2")), "'qwen2' model"),
        (str(write_gguf(nano, tmp_path / "odd.gguf", odd=13)), "Q5_K"),
        (str(write_gguf(nano, tmp_path / "new.gguf", odd=99)), "type 99"),
    ]:
        with pytest.raises(InvalidRequest, match=said):
            await found.convert(path, ConvertTo(4), is_path=True)
    with pytest.raises(InvalidRequest, match="how many bits"):
        await found.convert(str(write_gguf(nano, tmp_path / "plain.gguf")), ConvertTo(), is_path=True)
    for model, to, said in [("org/model", ConvertTo(), "how many bits"), ("org/vectors", ConvertTo(4), "vectors")]:
        with pytest.raises(InvalidRequest, match=said):
            await found.convert(model, to)
    for name in ("../x", "a/b", ".hidden", "", "models--a--b", "a..b", "x" * 97, "a\n"):
        with pytest.raises(InvalidRequest, match="name"):
            await found.convert("org/model", ConvertTo(4), name=name)
    done = await made(found, "org/model", ConvertTo(4, 128))
    assert (done.job.state, done.job.code, "smaller group_size" in done.job.message) == (
        "failed",
        "unsupported_model",
        True,
    )


def test_names_and_headers(tmp_path: Path) -> None:
    assert result_name("mlx-community/Qwen3-4B-bf16", 4, None) == "Qwen3-4B-4bit-mlx"
    assert result_name("SmolLM2-135M-Instruct.Q4_1.gguf", None, None) == "SmolLM2-135M-Instruct-mlx"
    assert result_name("Ünï/…", 8, None) == "model-8bit-mlx"
    assert read_gguf(write_gguf(nano_model(), tmp_path / "a.gguf", "Q4_1")).own_bits == 4


def test_it_answers_by_command_and_over_the_api(tmp_path: Path) -> None:
    file = write_gguf(nano_model(), tmp_path / "nano.Q8_0.gguf", "Q8_0")
    with real_server(tmp_path) as server:
        place(nano_model(), server.home / "models" / "org" / "nano")
        said = lmx(server, "convert", str(file), "--name", "mine")
        assert (said.exit_code, said.stdout[:21]) == (0, "local/mine: 0 MB in /"), said.output
        # The scan has not seen the other one yet, which the conversion's end made up for.
        body = {"model_id": "org/nano", "to": {"bits": 8, "group_size": 32}, "wait": True}
        status, done = ask(server, "/admin/model/convert", body)
        assert (status, done["model_id"], done["origin"]["bits"]) == (200, "local/nano-8bit-mlx", 8)
        texts = []
        for model in ("local/mine", "local/nano-8bit-mlx"):
            chat = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 6, "temperature": 0}
            status, answer = ask(server, "/v1/chat/completions", chat)
            assert status == 200, answer
            texts.append(answer["choices"][0]["message"]["content"])
        assert texts[0] == texts[1] != "", "the same model with the same bits, by two ways"
        wrong = ask(server, "/admin/model/convert", {"model_id": "org/nano", "path": "/x.gguf", "to": {"bits": 4}})
        assert wrong[0] == 400
        assert ask(server, "/admin/model/convert", {"model_id": "org/nano", "to": {"bits": 5}})[0] == 400
        assert ask(server, "/admin/model/convert", {"model_id": "nobody", "to": {"bits": 4}})[0] == 404
        taken = lmx(server, "convert", "org/nano", "--bits", "8", "--group-size", "32")
        assert (taken.exit_code, "is there already" in taken.stderr) == (1, True)
        assert lmx(server, "convert", "org/nano", "--bits", "5").exit_code == 2


def test_what_is_being_made_is_no_orphan(tmp_path: Path) -> None:
    """Its page would have its owner delete it by hand."""
    model = place(nano_model(), tmp_path / "local" / "done")
    partial = converting(tmp_path / "local" / "making")
    partial.mkdir()
    (partial / WEIGHTS).write_bytes(b"half")
    assert orphans(tmp_path, [model]) == []
