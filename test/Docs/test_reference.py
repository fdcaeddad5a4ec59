"""The reference in docs/ is up to date and complete."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GENERATE = ROOT / "docs" / "generate.py"

specification = importlib.util.spec_from_file_location("generate", GENERATE)
generate = importlib.util.module_from_spec(specification)
specification.loader.exec_module(generate)

NAMES = [*generate.passes(), *generate.pipelines()]


def test_generated():
    """Otherwise: run docs/generate.py."""
    done = subprocess.run([sys.executable, GENERATE, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_example_of_pass(name):
    """Each pass and pipeline has an example that lit runs through it."""
    path = generate.EXAMPLES / f"{name}.mlir"
    assert path.exists(), f"{name} has no example: write {path.relative_to(ROOT)}"
    text = path.read_text()
    run = "\n".join(re.findall(r"^// RUN: (.*)", text, re.MULTILINE))
    assert re.search(rf"moe-opt %s .*\b{name}\b", run), f"no RUN line has {name}"
    assert "| FileCheck %s" in run and re.search(r"^// CHECK", text, re.MULTILINE)


def test_no_other_examples():
    """An example outlives its pass only by mistake."""
    assert sorted(path.stem for path in generate.EXAMPLES.glob("*.mlir")) == sorted(NAMES)


def test_discardable_attributes():
    """attributes.md has a row for each moe.* attribute that the dialect accepts."""
    source = (ROOT / "lib/Dialect/MoE/IR/MoEDiscardableAttributes.cpp").read_text()
    shared = (ROOT / "include/moe/Dialect/MoE/IR/MoEABI.h").read_text()
    names = set(re.findall(r'\{"(moe\.\w+)"', source) + re.findall(r'"(moe\.\w+)"', shared))
    assert names
    text = (ROOT / "docs" / "attributes.md").read_text()
    assert names == set(re.findall(r"^\| `(moe\.\w+)`", text, re.MULTILINE))


def test_environment():
    """environment.md has every variable with our prefix that the code reads."""
    read = re.compile(r"""(?:getenv\(|environ\.get\(|environ\[|setdefault\()\s*"(MOE_\w+)\"""")
    names = set()
    for folder in ("lib", "tools", "runtime", "python", "bench", "test"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".cpp", ".h", ".c", ".py"):
                names |= set(read.findall(path.read_text(errors="replace")))
    text = (ROOT / "docs" / "environment.md").read_text()
    assert "MOE_CACHE_DIR" in names
    missing = [name for name in names
               if f"`{name}`" not in text and not name.startswith("MOE_CUDA_DOUBLE_")]
    assert not missing, f"docs/environment.md does not have {missing}"


def test_links():
    """Links between the documents lead somewhere."""
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
        for link in re.findall(r"\]\(([^)#\s]+)", text):
            if "://" not in link:
                assert (path.parent / link).exists(), f"{path.name}: no {link}"
