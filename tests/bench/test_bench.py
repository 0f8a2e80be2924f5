"""The benchmark itself: what it measures arrives in its three files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.bench import report
from tests.bench.measure import Plan, measure
from tests.bench.stacks import ROOT
from tests.material import nano_model

OURS = ("raw loop", "engine alone", "opta-lmx")


@pytest.mark.slow
def test_a_run_measures_every_stack_and_writes_its_figures(tmp_path: Path) -> None:
    rows = measure(Plan(nano_model(), 8, [1, 2], 4, 120), OURS)
    assert [(row["stack"], row.get("streams"), row.get("problem")) for row in rows] == [
        (stack, streams, None) for stack in OURS for streams in (1, 2)
    ]
    assert {row["tokens"] for row in rows if row["stack"] != "raw loop"} == {8, 16}
    report.write("run", {"about": {"machine": "this"}, "models": {"nano": rows}}, tmp_path)
    assert json.loads((tmp_path / "run.json").read_text())["models"]["nano"] == rows
    table = (tmp_path / "run.md").read_text()
    assert all(table.count(f"| {stack} |") == 2 for stack in OURS)
    assert ElementTree.fromstring((tmp_path / "run.svg").read_text()).tag.endswith("svg")


def test_a_stack_that_fails_loses_nobody_else_s_figures(tmp_path: Path) -> None:
    rows = measure(Plan(tmp_path, 8, [1], 4, 60), ("raw loop", "engine alone"))
    assert [row["stack"] for row in rows] == ["raw loop", "engine alone"]
    assert all(row["problem"] for row in rows)
    assert report.markdown("run", {"about": {}, "models": {"none": rows}}).count("did not run") == 2


@pytest.mark.slow
def test_the_gpu_s_model_can_be_made(tmp_path: Path) -> None:
    """The same program on a smaller shape; the real one has 1.24 billion parameters."""
    small = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 1}
    small |= {"num_key_value_heads": 1}
    program = (
        "import sys; from pathlib import Path; from tests.bench import big_model as b;"
        f"b.make(Path(sys.argv[1]), b.CONFIG | {small!r})"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "model")], cwd=ROOT, check=True, timeout=300)
    made = {file.name for file in (tmp_path / "model").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= made
