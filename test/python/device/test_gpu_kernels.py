"""Every kernel goes through ptxas, where there is one: no spill, no stack, no warning.

What runs them is test_layers_gpu: both take the same artifacts, which are compiled once.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from moe import _tools
from moe_testing import compiled_layers, layers
from moe_testing.cases import grouped_device, routing, scaled


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
def needs_ptxas(device):
    if PTXAS is None:
        pytest.skip("there is no ptxas, neither of the CUDA Toolkit nor of the package "
                    "nvidia-cuda-nvcc")


@functools.cache
def ptx_of(text, target, options=()):
    import moe

    return compiled_layers.ptx_of(moe.compile(text, target=target, device="cuda",
                                              options=options))


@dataclass(frozen=True)
class Assembled:
    """What ptxas says of a kernel, and nvdisasm of its machine code, where there is one."""

    registers: int
    frame: int
    stores: int
    loads: int
    code: str


ENTRY = re.compile(r"^\.visible \.entry (\w+)\(.*?(?=^\t// \.globl|\Z)", re.M | re.S)
# Of each kernel that was assembled, by its text without its name: layers share many.
ASSEMBLED: dict[tuple[str, str], Assembled] = {}


def assemble(ptx, arch):
    """Each kernel of a module, for an architecture; without a complaint."""
    entries = {entry.group(1): entry.group(0) for entry in ENTRY.finditer(ptx)}
    assert len(entries) == ptx.count(".entry") > 0
    keys = {name: (arch, re.sub(rf"\b{name}\b", "kernel", text))
            for name, text in entries.items()}
    new = {name for name, key in keys.items() if key not in ASSEMBLED}
    if new:
        some = ENTRY.sub(lambda entry: entry.group(0) if entry.group(1) in new else "", ptx)
        for name, found in run_ptxas(some, arch).items():
            ASSEMBLED[keys[name]] = found
    return {name: ASSEMBLED[key] for name, key in keys.items()}


def run_ptxas(ptx, arch):
    with tempfile.TemporaryDirectory(prefix="moe-ptxas-") as directory:
        source, cubin = Path(directory) / "kernels.ptx", Path(directory) / "kernels.cubin"
        source.write_text(ptx)
        done = subprocess.run([PTXAS, "-v", "-O3", f"-arch={arch}", source, "-o", cubin],
                              text=True, capture_output=True)
        assert done.returncode == 0, done.stderr
        code = machine_code(cubin) if NVDISASM else {}
    report = done.stdout + done.stderr
    assert not (complaints := re.findall(r"C7\d+.*", report)), complaints
    made = {}
    for kernel, body in re.findall(r"Function properties for (\S+)\n(.*?)(?=Function prop|\Z)",
                                   report, re.S):
        frame, stores, loads = map(int, re.search(
            r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads",
            body).groups())
        used = re.search(r"Used (\d+) registers", body)
        made[kernel] = Assembled(int(used.group(1)) if used else 0, frame, stores, loads,
                                 code.get(kernel, ""))
    return made


def machine_code(cubin):
    """The instructions of each kernel."""
    done = subprocess.run([NVDISASM, cubin], text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    parts = re.split(r"^\s*\.section\s+\.text\.(\w+),.*$", done.stdout, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2]))


CASES = ([(name, "bf16", target, target) for name in KERNELS for target in ("sm_80", "sm_90a")]
         + [("qwen3_moe", "f16", target, target) for target in ("sm_80", "sm_90a")]
         + [("gpt_oss", "bf16", "sm_80", arch) for arch in LATER])


def check_kernels(ptx, arch):
    for kernel, its in assemble(ptx, arch).items():
        assert (its.frame, its.stores, its.loads) == (0, 0, 0), kernel
        # What a block starts with: WgmmaKernel.cpp counts on it.
        assert its.registers <= (168 if "wgmma" in kernel else 255), kernel


@pytest.mark.parametrize("name,dtype,target,arch", CASES)
def test_assembles(name, dtype, target, arch):
    ptx = ptx_of(layers.text(name, dtype), target)
    check_kernels(ptx, arch)
    assert ("wgmma.mma_async" if target == "sm_90a" else "mma.sync") in ptx
    assert ("wgmma" in ptx) == (target == "sm_90a")


@pytest.mark.parametrize("name,target", [("qwen3_moe", "sm_80"), ("qwen3_moe", "sm_90a"),
                                         ("gpt_oss", "sm_80")])
def test_backward_functions_assemble(name, target):
    ptx = ptx_of(layers.text(name, "bf16"), target, ("--backward=all",))
    check_kernels(ptx, target)
    assert "grouped_contract" in ptx and "gate_gradient" in ptx


@pytest.mark.parametrize("target", ["sm_80", "sm_90a"])
@pytest.mark.parametrize("name", ["qwen3_moe", "gpt_oss", "phimoe"])
def test_no_loops_are_left(name, target):
    kernels = re.findall(r"\.entry (\w+)\(", ptx_of(layers.text(name, "bf16"), target))
    assert kernels and not [kernel for kernel in kernels if kernel.startswith("loop")]


@pytest.mark.parametrize("name", ["sum_bf16_1024x72", "gather_bf16_1024x97t",
                                  "interleaved_bf16_1024x200", "interleaved_bf16_1024x97t"])
def test_split_sums_assemble(name):
    """The layers' sums are too short to be split."""
    ptx = ptx_of(grouped_device.BY_NAME[name].text(), "sm_90a")
    check_kernels(ptx, "sm_90a")
    assert "reqnctapercluster" in ptx


@pytest.mark.parametrize("target,kernel", [("sm_80", "router_1"), ("sm_90a", "router_2")])
def test_a_staged_router_assembles(target, kernel):
    """With as many sums as a warp may have; the layers' routers have fewer experts."""
    its = assemble(ptx_of(routing.Router(128, 4096, 8).text(), target), target)[kernel]
    assert (its.frame, its.stores, its.loads) == (0, 0, 0)


# With gathered rows: SwiGLU; biases, and weights along n; a sum that is split; rows of 8 bits.
FENCED = {
    "qwen3_moe": lambda: layers.text("qwen3_moe", "bf16"),
    "gpt_oss": lambda: layers.text("gpt_oss", "bf16"),
    "gather_bf16_1024x97t": lambda: grouped_device.BY_NAME["gather_bf16_1024x97t"].text(),
    "gathered_two": lambda: next(case for case in SCALED if case.name == "gathered_two").text(),
}


@pytest.mark.parametrize("name", FENCED)
def test_consumer_fences_assemble(name):
    """The other form of the gathered load."""
    ptx = ptx_of(FENCED[name](), "sm_90a",
                 ("--pipeline=moe-gpu{arch=sm_90a gather-fence=consumer}",))
    check_kernels(ptx, "sm_90a")
    assert "cp.async.mbarrier.arrive.noinc" in ptx


needs_nvdisasm = pytest.mark.skipif(
    NVDISASM is None, reason="there is no nvdisasm, neither of the CUDA Toolkit nor of the "
    "package nvidia-cuda-nvdisasm")


@needs_nvdisasm
@pytest.mark.parametrize("target", ["sm_80", "sm_90a"])
@pytest.mark.parametrize("name", KERNELS)
def test_products_use_tensor_cores(name, target):
    """In the machine code, too: ptxas may have an instruction emulated."""
    made = assemble(ptx_of(layers.text(name, "bf16"), target), target)
    products = {kernel: its.code for kernel, its in made.items()
                if kernel.startswith("grouped_matmul")}
    instruction = "HGMMA" if target == "sm_90a" else "HMMA"
    assert products
    for kernel, code in products.items():
        assert re.search(rf"\b{instruction}\.", code), f"{kernel} has no {instruction}"


def epilogue_of(code):
    """What follows the last product, which ptxas puts in order, up to the fence of a combine."""
    return re.split(r"\bMEMBAR\b", re.split(r"\bHG?MMA\.", code)[-1])[0]


@needs_nvdisasm
@pytest.mark.parametrize("target", ["sm_80", "sm_90a"])
@pytest.mark.parametrize("name", ["qwen3_moe", "gemma4", "gpt_oss", "switch", "phimoe"])
def test_epilogues_do_not_branch(name, target):
    """Results of 16 bits: neither the slow path of a division nor a branch around a store."""
    made = assemble(ptx_of(layers.text(name, "bf16"), target), target)
    found = {}
    for kernel, its in made.items():
        code = epilogue_of(its.code)
        # A combine of few tokens is one: its last block adds up rows.
        if not kernel.startswith("grouped_matmul") or "RED" in code or "ATOM" in code:
            continue
        # Behind the code stand subroutines of warps that have diverged at a shuffle.
        found[kernel] = [line for line in re.findall(r"\b(?:FCHK|BSSY|CALL)\b.*", code)
                         if "shflsync" not in line and ".L_x" not in line
                         or line.startswith("BSSY")]
    assert len(found) >= 3 and not any(found.values()), found


@pytest.fixture
def whole_tiles(monkeypatch):
    """Layers whose results have the 192 columns of a tile, gate and up those of 96: ptxas leaves
    out what is never stored."""
    monkeypatch.setattr(layers, "H", 192)
    monkeypatch.setattr(layers, "I", 96)


@needs_nvdisasm
def test_results_are_stored_wide(whole_tiles):
    """16 bytes a store by way of shared memory, where rows begin at multiples of 16 bytes."""
    made = assemble(ptx_of(layers.text("qwen3_moe", "bf16"), "sm_90a"), "sm_90a")
    kernels = {kernel: epilogue_of(its.code) for kernel, its in made.items()
               if kernel.startswith("grouped_matmul_wgmma")}
    assert len(kernels) == 2
    for kernel, code in kernels.items():
        stores = re.findall(r"\bSTG\.\S+", code)
        assert stores and {store.rstrip(",") for store in stores} == {"STG.E.128"}, kernel
        # Four fragments of 8 x 8 a stmatrix, 16 bytes of each of 32 lanes a store.
        assert len(re.findall(r"\bSTSM\.16\.M88\.4", code)) == len(stores)


def works_of(text):
    """What the compiler notes of each kernel for its model (moe.work): the text in braces."""
    done = subprocess.run([_tools.find_tool("moe-opt"), "-moe-gpu-to-buffers=arch=sm_90a"],
                          input=text, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    return dict(re.findall(r"llvm\.func @(\w+)\(.*?moe\.work = \{(.*?)\}, nvvm", done.stdout))


@needs_nvdisasm
@pytest.mark.parametrize("name", ["qwen3_moe", "mixtral", "gemma4"])
def test_epilogues_are_as_long_as_the_model_says(name, whole_tiles):
    """Within 5 %: what follows the last product up to the end of the loop over tiles, and the
    special functions in it, for the elements of a thread."""
    text = layers.text(name, "bf16")
    made, works = assemble(ptx_of(text, "sm_90a"), "sm_90a"), works_of(text)
    kernels = [kernel for kernel in made if kernel.startswith("grouped_matmul_wgmma")]
    assert len(kernels) == 2
    for kernel in kernels:
        work = works[kernel]
        number = {key: float(re.search(rf"\b{key} = ([\d.e+-]+)", work).group(1))
                  for key in ("instructions", "functions", "accumulators", "rows", "columns")}
        threads = 128 if "ping_pong" in work else 256
        elements = number["rows"] * number["columns"] / number["accumulators"] / threads
        code = re.split(r"\bEXIT\b", epilogue_of(made[kernel].code))[0]
        found = len(re.findall(r"/\*[0-9a-f]{4,}\*/ +[@A-Z]", code))
        # storeInstructions of KernelModel.cpp
        assert found == pytest.approx(elements * number["instructions"] + 125, rel=0.05), kernel
        # One more may be of the division that finds the place of a tile.
        assert code.count("MUFU") - elements * number["functions"] in (0, 1), kernel


# Blocks of swapped operands: two are resident, which is what the grid counts on.
@pytest.mark.parametrize("name", ["qwen3_moe", "gemma4", "gpt_oss"])
def test_two_blocks_of_swapped_operands_fit(name):
    made = assemble(ptx_of(layers.text(name, "bf16"), "sm_90a"), "sm_90a")
    swapped = [its.registers for kernel, its in made.items() if "swapped" in kernel]
    assert swapped and max(swapped) <= 65536 // (2 * 256)


# Rows of 8 and of 16 bits, one product and two, gathered, with scales of each kind.
SCALED = [case for case in scaled.CASES
          if case.name in ("ragged", "two", "gathered_two", "bf16_rows", "f16_rows", "small_blocks",
                           "long_blocks", "interleaved", "interleaved_bf16", "unscaled",
                           "split_in_two", "bf16_small_blocks")]


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a", "sm_120"])
@pytest.mark.parametrize("case", SCALED, ids=lambda case: case.name)
def test_products_of_8_bits_assemble(case, arch):
    target = "sm_90a" if arch == "sm_90a" else "sm_80"
    ptx = ptx_of(case.text(), target)
    check_kernels(ptx, arch)
    assert "mma.sync" in ptx
    assert ("wgmma" in ptx) == (target == "sm_90a")
    if target == "sm_90a" and case.rows != scaled.F8:  # two blocks are resident
        swapped = [its.registers for kernel, its in assemble(ptx, arch).items()
                   if "swapped" in kernel]
        assert swapped and max(swapped) <= 65536 // (2 * 256)
    # sm_80 has no conversion of 8-bit floats.
    assert "e4m3" not in ptx or target == "sm_90a"


@pytest.mark.parametrize("target", ["sm_80", "sm_90a"])
def test_quantization_assembles(target):
    check_kernels(ptx_of(scaled.quantize_text(320, 128, "bf16"), target), target)
