"""The wheel, installed in an environment without this source tree, LLVM or a linker in reach."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
BUILD = Path(os.environ.get("MOE_BUILD_DIR", ROOT / "build"))
LAYER = """
func.func @layer(%l: tensor<?x8xf32>) -> (tensor<?x2xf32>, tensor<?x2xi32>) {
  %w, %i = moe.gate %l top_k(2) normalize(<sum>) : tensor<?x8xf32>
  return %w, %i : tensor<?x2xf32>, tensor<?x2xi32>
}
"""


def run(*command, **options):
    return subprocess.run([str(part) for part in command], text=True, capture_output=True,
                          **options)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    found = run("ninja", "-C", BUILD, "-t", "query", "MoEWheel")
    if found.returncode:
        pytest.skip("the build has no target MoEWheel: LLVM's archives or lld are missing")
    built = run("ninja", "-C", BUILD, "MoEWheel")
    assert built.returncode == 0, built.stdout + built.stderr
    made = run(sys.executable, ROOT / "python" / "make_wheel.py", BUILD,
               tmp_path_factory.mktemp("wheel"))
    assert made.returncode == 0, made.stdout + made.stderr
    return Path(made.stdout.splitlines()[0])


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """The folder of an environment with the wheel alone; numpy comes from this one."""
    folder = tmp_path_factory.mktemp("environment")
    assert run(sys.executable, "-m", "venv", "--without-pip", folder).returncode == 0
    installed = run(sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install",
                    "--disable-pip-version-check", "--no-index", "--no-deps", wheel)
    assert installed.returncode == 0, installed.stdout + installed.stderr
    site = next((folder / "lib").glob("python*/site-packages"))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def in_environment(environment, tmp_path, *command, **options):
    variables = {"PATH": str(environment / "bin"), "HOME": str(tmp_path),
                 "MOE_CACHE_DIR": str(tmp_path / "cache")}
    done = run(environment / "bin" / command[0], *command[1:], cwd=tmp_path, env=variables,
               **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_tag_and_content(wheel):
    """It runs with Python 3.11 and later and, as auditwheel finds, with the glibc of 2021 on."""
    assert wheel.name.startswith("moe_compiler-0.1.0-cp311-abi3-manylinux_2_34_")
    names = zipfile.ZipFile(wheel).namelist()
    for name in ("moe/py.typed", "moe/monitor/__main__.py", "moe/bin/moe-compile",
                 "moe/bin/moe-opt", "moe/bin/moe-run",
                 "moe/lib/libMoECompiler.so", "moe/lib/libmoe_rt.so.0",
                 "moe_compiler-0.1.0.dist-info/licenses/LICENSE",
                 "moe_compiler-0.1.0.dist-info/licenses/LICENSE.llvm"):
        assert name in names
    # No other library came along: LLVM is inside, in the parts that are used.
    assert [name for name in names if ".so" in name] == [
        "moe/_native.abi3.so", "moe/lib/libMoECompiler.so", "moe/lib/libmoe_onnxruntime.so",
        "moe/lib/libmoe_rt.so.0"]


def test_library_for_onnxruntime(environment, tmp_path):
    """It finds the runtime that is beside it."""
    in_environment(environment, tmp_path, "python", "-c", """
import ctypes, moe, pathlib
folder = pathlib.Path(moe.__file__).parent / "lib"
ctypes.CDLL(folder / "libmoe_onnxruntime.so").RegisterCustomOps
loaded = {line.split()[-1] for line in open("/proc/self/maps") if "libmoe_rt" in line}
assert loaded == {str(folder / "libmoe_rt.so.0")}, loaded
""")


def test_backend_of_torch_compile(environment, tmp_path):
    """torch finds it by its name, whether it was imported before or not."""
    pytest.importorskip("torch")
    for first in ("torch", "moe.integrations.dynamo"):
        out = in_environment(
            environment, tmp_path, "python", "-c", f"import {first}, torch\n"
            "print(torch._dynamo.lookup_backend('moe').__module__)")
        assert out.strip() == "moe.integrations.dynamo"


def test_python_m_moe(environment, tmp_path):
    out = in_environment(environment, tmp_path, "python", "-m", "moe")
    package, runtime, compiler = out.splitlines()
    site = str(environment / "lib")
    assert package.startswith("package   0.1.0, " + site)
    assert runtime.startswith("runtime   0.1.0, " + site)
    assert compiler.startswith("compiler  0.1.0, ABI ") and site in compiler
    out = in_environment(environment, tmp_path, "python", "-m", "moe", "compile", "--version")
    assert out.startswith("moe-compile 0.1.0")
    done = run(environment / "bin" / "python", "-m", "moe", "nonsense", cwd=tmp_path)
    assert done.returncode == 2 and "python -m moe compile ARGUMENTS" in done.stderr


def test_compile_and_call(environment, tmp_path):
    (tmp_path / "layer.mlir").write_text(LAYER)
    in_environment(environment, tmp_path, "python", "-c", """
import moe, numpy as np
layer = moe.compile("layer.mlir").layer({})
logits = np.array([[0, 3, 1, 2, 0, 0, 0, 0]], np.float32)
weights, ids = layer(logits)
assert ids.tolist() == [[1, 3]], ids
np.testing.assert_allclose(weights, [[0.7310586, 0.2689414]], rtol=1e-6)
""")


def test_console_commands(environment, tmp_path):
    (tmp_path / "layer.mlir").write_text(LAYER)
    out = in_environment(environment, tmp_path, "moe-opt", "--moe-fuse", "layer.mlir")
    assert "moe.gate" in out
    in_environment(environment, tmp_path, "moe-compile", "layer.mlir", "-o", "layer.moe")
    # From an artifact, and compiled in the process of moe-run.
    for source in ("layer.moe", "layer.mlir"):
        out = in_environment(environment, tmp_path, "moe-run", source, "--tokens", "4")
        assert out.startswith("y0: f32[4, 2], min ")


def test_transformers_integration(environment, tmp_path):
    pytest.importorskip("transformers")
    in_environment(environment, tmp_path, "python", "-c", """
import torch
from transformers import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock
import moe, moe.integrations.transformers as compiled_experts

compiled_experts.register()
torch.manual_seed(0)
config = MixtralConfig(hidden_size=64, intermediate_size=96, num_local_experts=4)
config._experts_implementation = "eager"
block = MixtralSparseMoeBlock(config).eval()
for parameter in block.parameters():
    torch.nn.init.normal_(parameter, std=0.1)
x = torch.randn(1, 9, 64)
with torch.inference_mode():
    expected = block(x)
    config._experts_implementation = "moe_mlir"
    actual = block(x)
assert not torch.equal(actual, torch.zeros_like(actual))
torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
""")
