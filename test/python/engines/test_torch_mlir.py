"""Blocks of PyTorch that torch-mlir imports, raised here, and lowered by torch-mlir where nothing
is raised, against PyTorch itself.

`./dev check torch-mlir` runs this in an environment with torch-mlir.
"""

from __future__ import annotations

import importlib.util
import re
import runpy
import subprocess
from pathlib import Path

import moe
import numpy as np
import pytest
from moe._tools import find_tool

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torch_mlir") is None,
    reason="torch-mlir is not installed; ./dev check torch-mlir installs it")

if importlib.util.find_spec("torch_mlir") is not None:
    import torch
    import torch.nn.functional as F
    import transformers.integrations.moe  # noqa: F401: registers grouped_mm_fallback
    from torch_mlir import fx

    grouped_mm = torch.ops.transformers.grouped_mm_fallback

EXPERTS, TOP_K, HIDDEN, INNER, TOKENS = 8, 3, 32, 48, 12
NAMES = "x", "router", "up", "down"


def parameters(inner=INNER, seed=0):
    """Weights whose rows differ in size, so that a mistake in one shows."""
    rng = np.random.default_rng(seed)

    def draw(*shape):
        array = rng.standard_normal(shape) * rng.uniform(0.2, 2.0, shape[:-1])[..., None]
        return torch.from_numpy((array / np.sqrt(shape[-1])).astype("float32"))

    return (draw(EXPERTS, HIDDEN), draw(EXPERTS, 2 * inner, HIDDEN), draw(EXPERTS, HIDDEN, inner))


def rows(tokens):
    return torch.from_numpy(
        np.random.default_rng(tokens).standard_normal((tokens, HIDDEN)).astype("float32"))


def route(x, router):
    weights, ids = torch.topk(F.softmax(F.linear(x, router), dim=-1, dtype=torch.float), TOP_K)
    return weights / weights.sum(dim=-1, keepdim=True), ids


def gated(y):
    gate, up = y.chunk(2, dim=-1)
    return F.silu(gate) * up


# -- blocks, as their users write them ------------------------------------------


def grouped(x, router, up, down):
    """transformers' grouped_mm: an unstable sort, a histogram, the inverse by an index."""
    weights, ids = route(x, router)
    sorted_ids, order = torch.sort(ids.reshape(-1))
    counts = torch.histc(sorted_ids.float(), bins=EXPERTS, min=0, max=EXPERTS - 1)
    ends = torch.cumsum(counts, dim=0, dtype=torch.int32)
    y = gated(grouped_mm(x[order // TOP_K], up.transpose(-2, -1), ends))
    y = grouped_mm(y, down.transpose(-2, -1), ends) * weights.reshape(-1)[order].unsqueeze(-1)
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(order.size(0))
    return y[inverse].view(-1, TOP_K, HIDDEN).sum(dim=1)


def index_add(x, router, up, down):
    """Counts by one_hot, tokens by repeat_interleave, rows that are added."""
    weights, ids = route(x, router)
    order = torch.argsort(ids.flatten(), stable=True)
    tokens = torch.arange(x.size(0)).repeat_interleave(TOP_K)[order]
    ends = F.one_hot(ids.flatten(), EXPERTS).sum(0).cumsum(0).to(torch.int32)
    y = grouped_mm(gated(grouped_mm(x.index_select(0, tokens), up.transpose(1, 2), ends)),
                   down.transpose(1, 2), ends)
    return torch.zeros_like(x).index_add(0, tokens, y * weights.flatten()[order].unsqueeze(-1))


def batched(x, router, up, down):
    """transformers' batched_mm: weights of each choice."""
    weights, ids = route(x, router)
    flat = ids.reshape(-1)
    y = torch.bmm(up[flat], x.repeat_interleave(TOP_K, dim=0).unsqueeze(-1)).squeeze(-1)
    y = torch.bmm(down[flat], gated(y).unsqueeze(-1)).squeeze(-1)
    return (y * weights.reshape(-1).unsqueeze(-1)).view(-1, TOP_K, HIDDEN).sum(dim=1)


def tiled(x, router, up, down):
    """All experts on all tokens; weights by scatter."""
    weights, ids = route(x, router)
    dense = torch.zeros(x.size(0), EXPERTS).scatter(1, ids, weights)
    y = gated(torch.bmm(x.repeat(EXPERTS, 1).view(EXPERTS, -1, HIDDEN), up.transpose(1, 2)))
    y = torch.bmm(y, down.transpose(1, 2)) * dense.transpose(0, 1).unsqueeze(-1)
    return y.sum(dim=0)


def einsum(x, router, up, down):
    """The same by einsums, and a mask of one_hot."""
    weights, ids = route(x, router)
    dense = (F.one_hot(ids, EXPERTS).to(x.dtype) * weights.unsqueeze(-1)).sum(dim=1)
    y = torch.einsum("tei,ehi->teh", gated(torch.einsum("th,eih->tei", x, up)), down)
    return torch.einsum("teh,te->th", y, dense)


def capacity(x, router, up, down, slots=6):
    """Masks of slots, as DeepSpeed and Tutel have them."""
    weights, ids = route(x, router)
    mask = F.one_hot(ids.reshape(-1), EXPERTS)
    place = ((torch.cumsum(mask, dim=0) - 1) * mask).sum(dim=-1)
    slot = F.one_hot(place.clamp(max=slots - 1), slots).to(x.dtype)
    slot = slot * (place < slots).unsqueeze(-1).to(x.dtype)
    hot = (mask.to(x.dtype).unsqueeze(-1) * slot.unsqueeze(1)).view(-1, TOP_K, EXPERTS, slots)
    taken = torch.einsum("tec,th->ech", hot.sum(dim=1), x)
    y = torch.bmm(gated(torch.bmm(taken, up.transpose(1, 2))), down.transpose(1, 2))
    combine = (hot * weights.unsqueeze(-1).unsqueeze(-1)).sum(dim=1)
    return torch.einsum("tec,ech->th", combine, y)


def gpt_oss(x, router, up, down):
    """A bias of the router, softmax of the chosen logits, gate and up interleaved and bounded."""
    logits = torch.topk(F.linear(x, router, router[:, 0]), k=TOP_K, dim=-1, sorted=True)
    y = torch.einsum("beck,bk->bec", up[logits.indices, ...], x)
    gate, linear = y[..., ::2].clamp(max=7.0), y[..., 1::2].clamp(min=-7.0, max=7.0)
    y = torch.einsum("beck,bek->bec", down[logits.indices, ...],
                     gate * torch.sigmoid(1.702 * gate) * (linear + 1))
    return torch.einsum("bec,be->bc", y, F.softmax(logits.values, dim=1))


def switch(x, router, up, down, slots=4):
    """transformers' Switch: one choice by max, masked beyond the capacity."""
    weights, ids = torch.max(F.softmax(F.linear(x, router), dim=-1), dim=-1)
    mask = F.one_hot(ids, EXPERTS)
    priority = torch.cumsum(mask, dim=-2)
    mask = mask * (priority <= slots)
    slot = F.one_hot((priority * mask).sum(-1).sub(1).clamp(min=0), slots).to(x.dtype)
    taken = mask.to(x.dtype).unsqueeze(-1) * slot.unsqueeze(1)
    y = gated(torch.einsum("ech,eih->eci", torch.einsum("tec,th->ech", taken, x), up))
    y = torch.einsum("eci,ehi->ech", y, down)
    return torch.einsum("tec,ech->th", taken * weights[:, None, None], y)


def scattered(x, router, up, down):
    """Counts and the sum by scatter_add, rows by gather, weights on the way (torchtitan)."""
    weights, ids = torch.topk(F.softmax(F.linear(x, router), dim=1), k=TOP_K, dim=1)
    flat = ids.reshape(-1)
    counts = torch.zeros(EXPERTS, dtype=torch.int64).scatter_add(0, flat, torch.ones_like(flat))
    order = torch.argsort(flat, stable=True)
    places = (order // TOP_K).reshape(-1, 1).expand(-1, HIDDEN)
    ends = torch.cumsum(counts, dim=0, dtype=torch.int32)
    y = gated(grouped_mm(torch.gather(x, 0, places), up.transpose(-2, -1), ends))
    y = grouped_mm(y, down.transpose(-2, -1), ends) * weights.reshape(-1)[order].reshape(-1, 1)
    return torch.zeros_like(x).scatter_add(0, places, y)


def deepseek(x, router, up, down):
    """Sigmoid scores with a bias for the choice alone, weights from the scores, scaled."""
    scores = F.linear(x, router).sigmoid()
    _, ids = torch.topk(scores + router[:, 0], k=TOP_K, dim=-1, sorted=False)
    weights = scores.gather(1, ids)
    weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-20) * 2.5
    order = ids.view(-1).argsort()
    ends = F.one_hot(ids.view(-1), EXPERTS).sum(dim=0).cumsum(0).to(torch.int32)
    y = gated(grouped_mm(x[order // TOP_K], up.transpose(1, 2), ends))
    y = grouped_mm(y, down.transpose(1, 2), ends)
    back = torch.empty_like(y)
    back[order] = y
    return (back.view(*ids.shape, -1) * weights.unsqueeze(-1)).sum(dim=1)


def unrolled(x, router, up, down):
    """Mixtral's loop over the experts, each on all tokens, so that it can be exported."""
    weights, ids = route(x, router)
    mask = F.one_hot(ids, num_classes=EXPERTS).permute(2, 1, 0)
    y = torch.zeros_like(x)
    for e in range(EXPERTS):
        expert = gated(x @ up[e].T) @ down[e].T
        y = y + expert * (mask[e].T * weights).sum(dim=-1, keepdim=True)
    return y


def llama4(x, router, up, down):
    """Llama 4: the rows of an expert are weighed, not its results; all experts on all tokens."""
    logits = F.linear(x, router)
    weights, ids = torch.topk(logits, TOP_K, dim=1)
    scores = torch.full_like(logits, float("-inf")).scatter_(1, ids, weights)
    scores = torch.sigmoid(scores.float()).to(x.dtype)
    y = x.repeat(EXPERTS, 1) * scores.transpose(0, 1).reshape(-1, 1)
    y = gated(torch.bmm(y.view(EXPERTS, -1, HIDDEN), up.transpose(1, 2)))
    y = torch.bmm(y, down.transpose(1, 2)).view(-1, HIDDEN)
    return y.reshape(EXPERTS, -1, HIDDEN).sum(dim=0)


def masked_softmax(x, router, up, down):
    """A softmax of logits of −inf but for the choices."""
    logits = F.linear(x, router)
    weights, ids = torch.topk(logits, TOP_K, dim=-1)
    dense = torch.full_like(logits, float("-inf")).scatter(1, ids, weights).softmax(dim=-1)
    y = torch.einsum("tei,ehi->teh", gated(torch.einsum("th,eih->tei", x, up)), down)
    return torch.einsum("teh,te->th", y, dense)


def unrolled_with_bias(x, router, up, down):
    """A loop over the experts whose products have a bias."""
    weights, ids = route(x, router)
    first, second = up[..., 0], down[..., 1]
    y = torch.zeros_like(x)
    for e in range(EXPERTS):
        gate = (weights * (ids == e)).sum(dim=-1, keepdim=True)
        expert = gated(F.linear(x, up[e], first[e]))
        y = y + F.linear(expert, down[e], second[e]) * gate
    return y


# With what their gate becomes.
BLOCKS = {"grouped": "top_k(3) normalize(<sum>)", "index_add": "top_k(3) normalize(<sum>)",
          "batched": "top_k(3) normalize(<sum>)", "tiled": "top_k(3) normalize(<sum>)",
          "einsum": "top_k(3) normalize(<sum>)", "capacity": "top_k(3) normalize(<sum>)",
          "unrolled": "top_k(3) normalize(<sum>)",
          "unrolled_with_bias": "top_k(3) normalize(<sum>)",
          "llama4": "top_k(3) score(none)",
          "masked_softmax": "top_k(3) order(select_then_score)",
          "gpt_oss": "top_k(3) order(select_then_score)", "switch": "top_k(1)",
          "scattered": "top_k(3)", "deepseek": "top_k(3) score(sigmoid) normalize(<sum, epsilon "
          "= 9.9999999999999995E-21>) scale(2.500000e+00)"}


# -- near misses ------------------------------------------------------------------


def next_expert(x, router, up, down):
    """The weights of the expert after the chosen one."""
    weights, ids = route(x, router)
    y = gated(torch.einsum("th,tkih->tki", x, up[(ids + 1) % EXPERTS]))
    return torch.einsum("tki,tkhi,tk->th", y, down[ids], weights)


def other_order(x, router, up, down):
    """Weights in the order of the tokens for rows in that of the experts."""
    weights, ids = route(x, router)
    order = torch.argsort(ids.flatten(), stable=True)
    ends = F.one_hot(ids.flatten(), EXPERTS).sum(0).cumsum(0).to(torch.int32)
    y = gated(grouped_mm(x[order // TOP_K], up.transpose(1, 2), ends))
    y = grouped_mm(y, down.transpose(1, 2), ends) * weights.flatten().unsqueeze(-1)
    return torch.zeros_like(x).index_add(0, order // TOP_K, y)


def sizes_as_ends(x, router, up, down):
    """The sizes of the groups where the ends are meant."""
    weights, ids = route(x, router)
    order = torch.argsort(ids.flatten(), stable=True)
    sizes = F.one_hot(ids.flatten(), EXPERTS).sum(0).to(torch.int32)
    ends = torch.cummax(sizes, 0)[0]
    y = grouped_mm(gated(grouped_mm(x[order // TOP_K], up.transpose(1, 2), ends)),
                   down.transpose(1, 2), ends)
    return torch.zeros_like(x).index_add(0, order // TOP_K, y)


def smallest(x, router, up, down):
    """The experts with the smallest scores."""
    weights, ids = torch.topk(F.linear(x, router), TOP_K, largest=False)
    dense = torch.zeros(x.size(0), EXPERTS).scatter(1, ids, weights)
    y = torch.einsum("tei,ehi->teh", gated(torch.einsum("th,eih->tei", x, up)), down)
    return torch.einsum("teh,te->th", y, dense)


def dropped_first(x, router, up, down):
    """Slots from the end: choices up to one are dropped, not those after it."""
    weights, ids = route(x, router)
    mask = F.one_hot(ids.reshape(-1), EXPERTS)
    place = (mask.flip(0).cumsum(0).flip(0) - 1).mul(mask).sum(dim=-1)
    kept = (place < 4).to(x.dtype).view(-1, TOP_K)
    dense = (F.one_hot(ids, EXPERTS).to(x.dtype) * (weights * kept).unsqueeze(-1)).sum(dim=1)
    y = torch.einsum("tei,ehi->teh", gated(torch.einsum("th,eih->tei", x, up)), down)
    return torch.einsum("teh,te->th", y, dense)


def scaled_with_bias(x, router, up, down):
    """Rows of zeros for the others, of which experts with a bias make something."""
    weights, ids = route(x, router)
    dense = torch.zeros(x.size(0), EXPERTS).scatter(1, ids, weights)
    y = x.repeat(EXPERTS, 1).view(EXPERTS, -1, HIDDEN) * dense.T.unsqueeze(-1)
    y = gated(torch.baddbmm(up[:, :, :1].transpose(1, 2), y, up.transpose(1, 2)))
    return torch.bmm(y, down.transpose(1, 2)).sum(dim=0)


def scaled_and_shifted(x, router, up, down):
    """The same by an activation that is not 0 of 0."""
    weights, ids = route(x, router)
    dense = torch.zeros(x.size(0), EXPERTS).scatter(1, ids, weights)
    y = x.repeat(EXPERTS, 1).view(EXPERTS, -1, HIDDEN) * dense.T.unsqueeze(-1)
    y = torch.bmm(y, up[:, :INNER].transpose(1, 2)).sigmoid()
    return torch.bmm(y, down.transpose(1, 2)).sum(dim=0)


def scaled_by_another(x, router, up, down):
    """Rows weighed for the next expert."""
    weights, ids = route(x, router)
    dense = torch.zeros(x.size(0), EXPERTS).scatter(1, ids, weights).roll(1, 1)
    y = x.repeat(EXPERTS, 1).view(EXPERTS, -1, HIDDEN) * dense.T.unsqueeze(-1)
    y = gated(torch.bmm(y, up.transpose(1, 2)))
    return torch.bmm(y, down.transpose(1, 2)).sum(dim=0)


# -- torch-mlir -----------------------------------------------------------------

LOWER = Path(__file__).parents[3] / "docs" / "examples" / "torch-mlir" / "lower.py"


def imported(block, tokens, arguments, decomposed=True):
    """Return torch-mlir's import of a block in the generic form; None: any number of tokens."""
    class Module(torch.nn.Module):
        def forward(self, x, router, up, down):
            return block(x, router, up, down)

    any_number = [{0: torch.export.Dim("t", min=2, max=4096)}, None, None, None]
    exported = torch.export.export(Module(), (rows(tokens or TOKENS), *arguments), strict=False,
                                   dynamic_shapes=None if tokens else any_number)
    options = {} if decomposed else {"decomposition_table": {}}
    module = fx.export_and_import(exported, output_type="raw", func_name="main", **options)
    return module.operation.get_asm(print_generic_op_form=True, enable_debug_info=False)


def moe_opt(text, *passes):
    done = subprocess.run([find_tool("moe-opt"), "-", "--allow-unregistered-dialect", *passes],
                          input=text, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def lowered(text):
    """Return what torch-mlir makes of a raised program, as the documented script does."""
    lower = runpy.run_path(str(LOWER))["lower"]
    text = lower(text, [(name, "weight" if name != "x" else "input") for name in NAMES])
    return moe_opt(text, "--linalg-inline-scalar-operands", "--canonicalize", "--moe-raise-gate",
                   "--moe-fuse-elementwise", "--canonicalize", "--cse")


def compiled(block, tokens, arguments, decomposed=True):
    text = moe_opt(imported(block, tokens, arguments, decomposed), "--mlir-print-op-generic",
                   "--moe-raise-routing", "--moe-raise-grouped")
    text = lowered(text)
    return moe.compile(text).layer(dict(zip(NAMES[1:], arguments))), text


def compare(layer, block, arguments, tokens):
    x = rows(tokens)
    expected = block(x, *arguments).double().numpy()
    got = np.asarray(layer(x), np.float64)
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= 2e-6 * np.abs(expected).max()


# -- tests ----------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [TOKENS, None], ids=["static", "any"])
@pytest.mark.parametrize("name", BLOCKS)
def test_blocks(name, tokens):
    """One gate, dispatch and combination, two products, in either number of tokens."""
    block, arguments = globals()[name], parameters()
    if block is llama4 and tokens is None:
        pytest.skip("torch.export refuses its views of any number of tokens")
    layer, text = compiled(block, tokens, arguments)
    assert ("scale_rows" in text) == (block is llama4)
    for operation, count in (("gate", 1), ("dispatch", 1), ("grouped_matmul", 2), ("combine", 1)):
        assert text.count(f"= moe.{operation} ") == count
    gate = re.search(r"= moe.gate %\S+ (?:bias\([^)]*\) )?(.*) :", text)
    assert gate[1] == BLOCKS[name]
    for number in (tokens,) if tokens else (2, 3, 33):
        compare(layer, block, arguments, number)


@pytest.mark.parametrize("block", ["grouped", "batched", "tiled", "einsum"])
def test_without_decompositions(block):
    """Operations that torch.export decomposes by default: linear, silu, einsum, chunk."""
    text = moe_opt(imported(globals()[block], TOKENS, parameters(), decomposed=False),
                   "--moe-raise-routing", "--moe-raise-grouped")
    for operation, count in (("gate", 1), ("dispatch", 1), ("grouped_matmul", 2), ("combine", 1)):
        assert text.count(f"= moe.{operation} ") == count


def test_square_weights():
    """Weights of one extent in both layouts."""
    def block(x, router, up, down):
        weights, ids = route(x, router)
        dense = torch.zeros(x.size(0), EXPERTS).scatter(1, ids, weights)
        y = torch.einsum("th,eih->tei", x, up[:, :HIDDEN])
        y = torch.einsum("tei,eih->teh", torch.relu(y), down)
        return torch.einsum("teh,te->th", y, dense)

    arguments = parameters(inner=HIDDEN)
    layer, text = compiled(block, TOKENS, arguments)
    assert text.count("= moe.grouped_matmul ") == 2
    compare(layer, block, arguments, TOKENS)


@pytest.mark.parametrize("block", [next_expert, other_order, smallest],
                         ids=lambda block: block.__name__)
def test_near_misses(block):
    """Right, raised or not; what torch-mlir does not lower is an error of its own."""
    arguments = parameters()
    text = moe_opt(imported(block, TOKENS, arguments), "--mlir-print-op-generic",
                   "--moe-raise-routing", "--moe-raise-grouped")
    try:
        text = lowered(text)
    except ir.MLIRError as error:
        assert "failed to legalize" in str(error)
        return
    compare(moe.compile(text).layer(dict(zip(NAMES[1:], arguments))), block, arguments, TOKENS)


def groups(x, router, up, down, slots=2):
    """Sequences of a batch, each with its own slots (GShard's [G, S, E, C])."""
    x = x.view(3, -1, HIDDEN)
    weights, ids = torch.topk(F.softmax(F.linear(x, router), dim=-1), TOP_K, dim=-1)
    mask = F.one_hot(ids, EXPERTS)
    flat = mask.view(3, -1, EXPERTS)
    place = ((torch.cumsum(flat, dim=1) - 1) * flat).sum(dim=-1).view(ids.shape)
    slot = F.one_hot(place.clamp(max=slots - 1), slots) * (place < slots).unsqueeze(-1)
    hot = mask.unsqueeze(-1) * slot.unsqueeze(-2)
    y = torch.einsum("gsec,gsh->egch", hot.sum(dim=2).to(x.dtype), x)
    y = gated(torch.einsum("egch,eih->egci", y, up))
    y = torch.einsum("egci,ehi->egch", y, down)
    combine = (hot * weights.unsqueeze(-1).unsqueeze(-1)).sum(dim=2)
    return torch.einsum("gsec,egch->gsh", combine, y).reshape(-1, HIDDEN)


def test_groups():
    arguments = parameters()
    layer, text = compiled(groups, TOKENS, arguments)
    assert f"experts({3 * EXPERTS}) capacity(<fixed = 2>)" in text
    assert text.count("= moe.grouped_matmul ") == 2 and text.count("= moe.combine ") == 1
    compare(layer, groups, arguments, TOKENS)


@pytest.mark.parametrize("block", [scaled_with_bias, scaled_and_shifted, scaled_by_another],
                         ids=lambda b: b.__name__)
def test_scaled_rows_that_stay(block):
    """Of what others make of zeros the sum has something, too; other weights are not those."""
    text = moe_opt(imported(block, TOKENS, parameters()), "--moe-raise-routing")
    assert "moe.gate" in text or block is scaled_by_another
    assert "moe.dispatch" not in text and "moe.combine" not in text


@pytest.mark.parametrize("block", [sizes_as_ends, dropped_first], ids=lambda b: b.__name__)
def test_not_raised(block):
    """Ends that are none of ours, and other places than those of a capacity."""
    text = moe_opt(imported(block, TOKENS, parameters()), "--moe-raise-routing",
                   "--moe-raise-grouped")
    assert "capacity(" not in text
    if block is sizes_as_ends:
        assert "torch.aten.cummax" in text and "tensor.insert_slice" in text
