"""The blocks of docs/profiles.md."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from moe_testing import data, layers
from moe_testing.compiled_layers import layer

import moe

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "profiles.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
CHECKPOINT = ROOT / "test" / "data" / "tiny-mixtral"

pytestmark = pytest.mark.usefixtures("compiled")


def run(block, **names):
    exec(compile(block, "docs/profiles.md", "exec"), names)
    return names


def test_every_block_runs():
    assert len(BLOCKS) == 3


def test_profile(capsys):
    mixtral = layer("mixtral")
    names = run(BLOCKS[0], layer=mixtral, x=data.inputs_of("mixtral", 33)["x"])
    assert names["profile"].call.calls == 1
    assert capsys.readouterr().out.startswith(mixtral.module.target)


def test_routes():
    run(BLOCKS[1], moe=moe, text=layers.text("mixtral"), weights=data.weights_of("mixtral"),
        x=data.inputs_of("mixtral", 33)["x"])


def test_routes_of_a_model():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    import moe.integrations.transformers as ce

    ce.register()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        CHECKPOINT, dtype=torch.float32, experts_implementation="moe_mlir").eval()
    with torch.no_grad():
        names = run(BLOCKS[2], model=model, ids=torch.tensor([list(b"In the beginning ")]))
    assert [len(calls) for calls in names["routes"].values()] == [4] * len(names["routes"])


def test_command(tmp_path):
    """The first command prints the table of the page."""
    command = re.search(r"```\n(moe-run .*--profile)\n```", PAGE)[1].split()
    moe.compile(layers.text("mixtral"), output=tmp_path / "layer.moe")
    tool = Path(os.environ.get("MOE_BUILD_DIR", ROOT / "build")).resolve() / "bin" / "moe-run"
    out = subprocess.run([tool, *command[1:]], cwd=tmp_path, text=True, capture_output=True,
                         check=True).stdout
    table, = re.findall(r"```\n(profile: .*?)```", PAGE, re.DOTALL)

    def names(text):
        """What the lines begin with; how gates become loops depends on the processor."""
        found = [line.split()[0] for line in text.splitlines()]
        return [name for name in found if "gate" not in name and name != "route"]

    assert names(out[out.index("profile:"):]) == names(table)
