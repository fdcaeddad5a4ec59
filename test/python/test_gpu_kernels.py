"""Every kernel goes through ptxas, where there is one: no spill, no stack, no warning.

What runs them is test_layers_gpu; this needs NVIDIA's assembler alone, no GPU.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

import layers
import pytest
import scaled_cases
import test_grouped_ops_gpu


def find_tool(name):
    """A tool of the CUDA Toolkit, or of the packages that NVIDIA makes of it."""
    places = [Path("/usr/local/cuda/bin")]
    if packages := importlib.util.find_spec("nvidia"):
        places += [place for p in packages.submodule_search_locations or ()
                   for place in Path(p).glob("cu*/bin")]
    return shutil.which(name) or next(
        (str(p / name) for p in places if os.access(p / name, os.X_OK)), None)


PTXAS = find_tool("ptxas")
NVDISASM = find_tool("nvdisasm")

# What the driver may be asked to compile the code of sm_80 for.
LATER = ["sm_89", "sm_90", "sm_100", "sm_120"]
# Families that together have every kernel: SwiGLU, GeGLU, biases and a clamp, ReLU,
# gathered or not, weights along k and along n; capacities in order of tokens, of choices and of
# probabilities; experts that choose tokens.
KERNELS = ["qwen3_moe", "gemma4", "gpt_oss", "switch", "deepseek_v3", "phimoe", "llama4",
           "mesh_top2", "mesh_ntlb", "deepspeed_topk", "expert_choice", "mesh_expert_selection"]


@pytest.fixture(autouse=True)
def needs_ptxas(compiled):
    if PTXAS is None:
        pytest.skip("there is no ptxas (the CUDA Toolkit's assembler)")


def ptx_of(text, target):
    import moe

    done = subprocess.run([moe.find_compiler(), "-", f"--target={target}", "--emit=ptx"],
                          input=text, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def assemble(ptx, arch, directory):
    """What ptxas says of each kernel: its registers, and all complaints."""
    source = directory / "kernels.ptx"
    source.write_text(ptx)
    done = subprocess.run([PTXAS, "-v", "-O3", f"-arch={arch}", source, "-o",
                           directory / "kernels.cubin"], text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    report = done.stdout + done.stderr
    registers = {}
    for kernel, body in re.findall(r"Function properties for (\S+)\n(.*?)(?=Function prop|\Z)",
                                   report, re.S):
        frame, stores, loads = map(int, re.search(
            r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads",
            body).groups())
        used = re.search(r"Used (\d+) registers", body)
        registers[kernel] = (int(used.group(1)) if used else 0, frame, stores, loads)
    return registers, re.findall(r"C7\d+.*", report)


CASES = ([(name, "bf16", target, target) for name in KERNELS for target in ("sm_80", "sm_90a")]
         + [("qwen3_moe", "f16", target, target) for target in ("sm_80", "sm_90a")]
         + [("gpt_oss", "bf16", "sm_80", arch) for arch in LATER])


def check_kernels(ptx, arch, directory):
    registers, warnings = assemble(ptx, arch, directory)
    assert registers and not warnings, warnings
    for kernel, (used, frame, stores, loads) in registers.items():
        assert (frame, stores, loads) == (0, 0, 0), kernel
        # What a block starts with: WgmmaKernel.cpp counts on it.
        assert used <= (168 if "wgmma" in kernel else 255), kernel


@pytest.mark.parametrize("name,dtype,target,arch", CASES)
def test_assembles(name, dtype, target, arch, tmp_path):
    ptx = ptx_of(layers.text(name, dtype), target)
    check_kernels(ptx, arch, tmp_path)
    assert ("wgmma.mma_async" if target == "sm_90a" else "mma.sync") in ptx
    assert ("wgmma" in ptx) == (target == "sm_90a")


@pytest.mark.parametrize("target", ["sm_80", "sm_90a"])
@pytest.mark.parametrize("name", ["qwen3_moe", "gpt_oss", "phimoe"])
def test_no_loops_are_left(name, target):
    kernels = re.findall(r"\.entry (\w+)\(", ptx_of(layers.text(name, "bf16"), target))
    assert kernels and not [kernel for kernel in kernels if kernel.startswith("loop")]


@pytest.mark.parametrize("name", ["sum_bf16_1024x72", "gather_bf16_1024x97t",
                                  "interleaved_bf16_1024x200", "interleaved_bf16_1024x97t"])
def test_split_sums_assemble(name, tmp_path):
    """The layers' sums are too short to be split."""
    ptx = ptx_of(test_grouped_ops_gpu.BY_NAME[name].text(), "sm_90a")
    registers, warnings = assemble(ptx, "sm_90a", tmp_path)
    assert not warnings and all(found[1:] == (0, 0, 0) for found in registers.values())
    assert "reqnctapercluster" in ptx


def machine_code(cubin):
    """The instructions of each kernel."""
    done = subprocess.run([NVDISASM, cubin], text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    parts = re.split(r"^\s*\.section\s+\.text\.(\w+),.*$", done.stdout, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2]))


@pytest.mark.skipif(NVDISASM is None, reason="there is no nvdisasm, neither of the CUDA "
                    "Toolkit nor of the package nvidia-cuda-nvdisasm")
@pytest.mark.parametrize("target", ["sm_80", "sm_90a"])
@pytest.mark.parametrize("name", KERNELS)
def test_products_use_tensor_cores(name, target, tmp_path):
    """In the machine code, too: ptxas may have an instruction emulated."""
    assemble(ptx_of(layers.text(name, "bf16"), target), target, tmp_path)
    products = {kernel: code for kernel, code in machine_code(tmp_path / "kernels.cubin").items()
                if kernel.startswith("grouped_matmul")}
    instruction = "HGMMA" if target == "sm_90a" else "HMMA"
    assert products
    for kernel, code in products.items():
        assert re.search(rf"\b{instruction}\.", code), f"{kernel} has no {instruction}"


# Rows of 8 and of 16 bits, one product and two, gathered, with scales of each kind.
SCALED = [case for case in scaled_cases.CASES
          if case.name in ("ragged", "two", "gathered_two", "bf16_rows", "f16_rows", "small_blocks",
                           "long_blocks", "interleaved", "interleaved_bf16", "unscaled")]


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a", "sm_120"])
@pytest.mark.parametrize("case", SCALED, ids=lambda case: case.name)
def test_products_of_8_bits_assemble(case, arch, tmp_path):
    target = "sm_90a" if arch == "sm_90a" else "sm_80"
    ptx = ptx_of(case.text(), target)
    check_kernels(ptx, arch, tmp_path)
    assert "mma.sync" in ptx
    assert ("wgmma" in ptx) == (target == "sm_90a" and case.rows == scaled_cases.F8)
    # sm_80 has no conversion of 8-bit floats.
    assert "e4m3" not in ptx or target == "sm_90a"


@pytest.mark.parametrize("target", ["sm_80", "sm_90a"])
def test_quantization_assembles(target, tmp_path):
    check_kernels(ptx_of(scaled_cases.quantize_text(320, 128, "bf16"), target), target, tmp_path)
