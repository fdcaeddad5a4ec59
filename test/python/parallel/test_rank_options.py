"""Capacities of each rank's tokens (scope = rank), and sums on each rank (reduce = per_rank)."""

from __future__ import annotations

import functools
import os
import sys

import moe
import numpy as np
import pytest
from moe_testing import compiled_layers, data, layers, processes, ranks
from moe_testing.layers import E, H

CAPACITIES = ("deepspeed_top1", "deepspeed_top2", "deepspeed_topk", "mesh_top2", "mesh_ntlb",
              "switch", "switch_passthrough", "expert_choice", "mesh_expert_selection")


@functools.cache
def artifact(name: str, dtype: str, parallel: str) -> bytes:
    return moe.compile(layers.text(name, dtype), options=[f"--parallel={parallel}"]
                       ).path.read_bytes()


def call(name: str, dtype: str, counts: list[int], parallel: str, table=None,
         **options) -> list[np.ndarray]:
    return ranks.call(lambda group: moe.load(artifact(name, dtype, parallel), group=group),
                      data.weights_of(name, dtype), data.inputs_of(name, sum(counts), dtype),
                      counts, table, **options)


def results_of(result) -> list[np.ndarray]:
    return list(result) if isinstance(result, tuple) else [result]


def same(ours, theirs) -> bool:
    return all((data.bits(a) == data.bits(b)).all() for a, b in zip(ours, theirs, strict=True))


# Capacities of each rank.


def each_rank_alone(name: str, counts: list[int]) -> list[np.ndarray]:
    """What one rank computes on the tokens of each."""
    parts = ranks.split(data.inputs_of(name, sum(counts)), counts)
    found = [results_of(compiled_layers.layer(name, "f32")(**part)) for part in parts]
    return [np.concatenate(each) for each in zip(*found)]


@pytest.mark.parametrize("name", CAPACITIES)
def test_tokens_of_a_rank_compete(name):
    random, differ = data.rng("scope", name), False
    for size in (1, 2, 5):
        counts = ranks.shares(random, 61, size)
        expected = each_rank_alone(name, counts)
        assert same(call(name, "f32", counts, f"{E},scope=rank"), expected), counts
        differ |= not same(call(name, "f32", counts, str(E)), expected)
    assert differ, "the tokens of a rank alone give what those of all give"


@pytest.mark.parametrize("options", ({"way": "peer"}, {"way": "all_gather"}, {"chunks": 3},
                                     {"memory_limit": 60_000}), ids=str)
def test_capacities_of_a_rank_in_all_ways(options):
    counts = [40, 0, 21]
    assert same(call("deepspeed_top2", "f32", counts, "ranks=3,scope=rank", **options),
                each_rank_alone("deepspeed_top2", counts))


def deepspeed_layer(group, name: str, tokens: int, path: str):
    """What DeepSpeed's MOELayer and ours give for the tokens of this rank."""
    import torch

    os.environ.update(DS_ACCELERATOR="cpu", MASTER_ADDR="127.0.0.1", MASTER_PORT="29500")
    import deepspeed
    from deepspeed.moe.experts import Experts
    from deepspeed.moe.sharded_moe import MOELayer, TopKGate

    # It would compile a kernel for sums over shared memory, which this does not call.
    sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None
    deepspeed.init_distributed("gloo", auto_mpi_discovery=False)
    rank, size = group.rank(), group.size()
    weights = data.weights_of(name)
    w = {key: torch.from_numpy(value) for key, value in weights.items()}
    hidden = w["wi"].shape[1]
    gate = TopKGate(H, E, k=2 if name == "deepspeed_top2" else 3, eval_capacity_factor=1.0,
                    min_capacity=2, top2_2nd_expert_sampling=False)
    experts = Experts(torch.nn.Sequential(torch.nn.Linear(H, hidden, bias=False), torch.nn.ReLU(),
                                          torch.nn.Linear(hidden, H, bias=False)),
                      E // size, expert_group_name="ep")
    with torch.no_grad():
        gate.wg.weight.copy_(w["router"])
        for i, expert in enumerate(experts.deepspeed_experts):
            expert[0].weight.copy_(w["wi"][rank * E // size + i])
            expert[2].weight.copy_(w["wo"][rank * E // size + i])
        layer = MOELayer(gate, experts, "ep", size, E // size)
        layer._set_ep_group(group)
        x = ranks.split(data.inputs_of(name, size * tokens), [tokens] * size)[rank]["x"]
        theirs = layer.eval()(torch.from_numpy(np.array(x)), None).numpy()
    ours = moe.load(path, group=moe.parallel.Group(group, num_threads=1)).layer(weights)(x)
    return ours, theirs


@pytest.mark.parametrize("size", (2, 4))
@pytest.mark.parametrize("name", ("deepspeed_top2", "deepspeed_topk"))
def test_deepspeed(name, size):
    """Without ``use_rts`` and noise; its top-1 breaks ties of a full expert in no stated order."""
    pytest.importorskip("deepspeed")
    path = str(moe.compile(layers.text(name, "f32"),
                           options=[f"--parallel={E // size},scope=rank"]).path)
    for tokens in (6, 19):
        for ours, theirs in processes.run(size, deepspeed_layer, name, tokens, path, limit=120):
            np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", ("deepspeed_top1", "deepspeed_top2", "deepspeed_topk"))
def test_formula_of_each_rank(name):
    """The published formulas on the tokens of each rank."""
    pytest.importorskip("torch")
    counts = [17, 30, 4]
    weights = data.weights_of(name)
    parts = ranks.split(data.inputs_of(name, sum(counts)), counts)
    expected = np.concatenate([data.oracle(name, part, weights) for part in parts])
    np.testing.assert_allclose(call(name, "f32", counts, "ranks=3,scope=rank")[0], expected,
                               rtol=2e-5, atol=2e-5)


# Sums on each rank.


def numbers(dtype: str) -> tuple[str, dict[str, np.ndarray]]:
    """A layer of given ids and weights, whose experts multiply by a matrix."""
    rounded = f"moe.yield %p : tensor<?x{H}xf32>"
    if dtype != "f32":
        rounded = (f"%t = arith.truncf %p : tensor<?x{H}xf32> to tensor<?x{H}x{dtype}>\n"
                   f"    moe.yield %t : tensor<?x{H}x{dtype}>")
    text = f"""
#lhs = affine_map<(m, n, k) -> (m, k)>
#rhs = affine_map<(m, n, k) -> (n, k)>
#out = affine_map<(m, n, k) -> (m, n)>
func.func @layer(%x: tensor<?x{H}x{dtype}> {{moe.name = "x"}},
                 %ids: tensor<?x4xi32> {{moe.name = "ids"}},
                 %weights: tensor<?x4xf32> {{moe.name = "weights"}},
                 %w: tensor<{E}x{H}x{H}x{dtype}> {{moe.name = "w", moe.role = "weight"}})
    -> tensor<?x{H}x{dtype}> {{
  %c0 = arith.constant 0 : index
  %zero = arith.constant 0.0 : f32
  %rows, %offsets, %positions = moe.dispatch %x, %ids experts({E})
    : tensor<?x{H}x{dtype}>, tensor<?x4xi32>
  %y = moe.expert %rows, %offsets params(%w : tensor<{E}x{H}x{H}x{dtype}>) {{
  ^bb0(%r: tensor<?x{H}x{dtype}>, %its: tensor<{H}x{H}x{dtype}>):
    %n = tensor.dim %r, %c0 : tensor<?x{H}x{dtype}>
    %e = tensor.empty(%n) : tensor<?x{H}xf32>
    %z = linalg.fill ins(%zero : f32) outs(%e : tensor<?x{H}xf32>) -> tensor<?x{H}xf32>
    %p = linalg.matmul indexing_maps = [#lhs, #rhs, #out]
      ins(%r, %its : tensor<?x{H}x{dtype}>, tensor<{H}x{H}x{dtype}>) outs(%z : tensor<?x{H}xf32>)
      -> tensor<?x{H}xf32>
    {rounded}
  }} : tensor<?x{H}x{dtype}>, tensor<{E + 1}xi32> -> tensor<?x{H}x{dtype}>
  %o = moe.combine %y, %positions weights(%weights : tensor<?x4xf32>)
    : tensor<?x{H}x{dtype}>, tensor<?x4xi32>
  return %o : tensor<?x{H}x{dtype}>
}}"""
    random = data.rng("sums", dtype)
    tokens = 45
    ids = np.stack([random.permutation(E)[:4] for _ in range(tokens)]).astype(np.int32)
    ids[random.random(ids.shape) < 0.15] = -1
    kind = data.numpy_type(dtype)
    return text, {"x": random.standard_normal((tokens, H)).astype(np.float32).astype(kind),
                  "ids": ids, "weights": random.random((tokens, 4)).astype(np.float32),
                  "w": random.standard_normal((E, H, H)).astype(np.float32).astype(kind)}


def add(rows: list[np.ndarray]) -> np.ndarray:
    """Their sum in f32, in this order, from 0, as moe.combine adds."""
    sum_ = np.zeros(rows[0].shape, np.float32)
    for row in rows:
        sum_ = sum_ + row.astype(np.float32)
    return sum_


def by_definition(dtype: str, given: dict[str, np.ndarray], table: np.ndarray) -> np.ndarray:
    """Sums of each rank by one rank without the choices of others, added in the order of first
    choices."""
    text, _ = numbers(dtype)
    layer = moe.compile(text).layer({"w": given["w"]})
    rank_of = {expert: rank for rank, own in enumerate(table.tolist())
               for expert in own if expert >= 0}
    where = np.vectorize(lambda e: rank_of.get(e, -1))(given["ids"])
    sums = [layer(given["x"], np.where(where == rank, given["ids"], -1).astype(np.int32),
                  given["weights"]) for rank in range(len(table))]
    rows = []
    for t, ranks_of in enumerate(where.tolist()):
        order = list(dict.fromkeys(rank for rank in ranks_of if rank >= 0))
        rows.append(add([sums[rank][t] for rank in order]) if order else np.zeros(H, np.float32))
    return np.stack(rows).astype(given["x"].dtype)


def call_numbers(dtype: str, counts: list[int], parallel: str, table=None, **options):
    text, given = numbers(dtype)
    path = moe.compile(text, options=[f"--parallel={parallel}"]).path.read_bytes()
    inputs = {key: given[key] for key in ("x", "ids", "weights")}
    return ranks.call(lambda group: moe.load(path, group=group), {"w": given["w"]}, inputs, counts,
                      table, **options)[0]


@pytest.mark.parametrize("dtype", ("f32", "bf16", "f16"))
@pytest.mark.parametrize("size", (1, 3, 7))
def test_sums_by_definition(dtype, size):
    table = moe.parallel.placement(E, size)
    random = data.rng("tables", size)
    table = np.where(table >= 0, random.permutation(E)[np.maximum(table, 0)], -1)
    text, given = numbers(dtype)
    expected = by_definition(dtype, given, table)
    for counts in ([45] + [0] * (size - 1), ranks.shares(random, 45, size)):
        got = call_numbers(dtype, counts, f"ranks={size},reduce=per_rank", table)
        # Where tokens are at home changes nothing.
        assert (data.bits(got) == data.bits(expected)).all(), counts


@pytest.mark.parametrize("options", ({"way": "peer"}, {"way": "all_gather"}, {"chunks": 2},
                                     {"memory_limit": 30_000}), ids=str)
def test_sums_in_all_ways(options):
    expected = by_definition("bf16", numbers("bf16")[1], moe.parallel.placement(E, 3))
    got = call_numbers("bf16", [20, 0, 25], "ranks=3,reduce=per_rank", **options)
    assert (data.bits(got) == data.bits(expected)).all()


@pytest.mark.parametrize("dtype, roundoff", (("f32", 2**-24), ("f16", 2**-11), ("bf16", 2**-8)))
def test_error_of_sums(dtype, roundoff):
    """The bound that #moe.parallel states, with rows in f64."""
    torch = pytest.importorskip("torch")
    _, given = numbers(dtype)
    size = 3
    table = moe.parallel.placement(E, size)
    x, w = (torch.from_numpy(given[key].astype(np.float64)) for key in ("x", "w"))
    rank_of = {e: r for r, own in enumerate(table.tolist()) for e in own if e >= 0}
    exact, absolute = torch.zeros_like(x), torch.zeros_like(x)
    of_rank = torch.zeros((size, *x.shape), dtype=torch.float64)
    for (t, k), expert in np.ndenumerate(given["ids"]):
        if expert >= 0:
            # Rows are of the type of the layer.
            row = torch.from_numpy((w[expert] @ x[t]).numpy().astype(np.float32).astype(
                given["x"].dtype).astype(np.float64)) * float(given["weights"][t, k])
            exact[t] += row
            absolute[t] += row.abs()
            of_rank[rank_of[expert], t] += row
    ordered = call_numbers(dtype, [45, 0, 0], f"ranks={size}").astype(np.float64)
    summed = call_numbers(dtype, [45, 0, 0], f"ranks={size},reduce=per_rank").astype(np.float64)
    rows = roundoff if dtype == "f32" else 0  # of the products, which are not exact
    bound = (roundoff * (of_rank.abs().sum(0) + 2 * exact.abs()) * (1 + 2**-6)
             + (8 * 2**-24 + H * rows) * absolute + 1e-30).numpy()
    difference = np.abs(summed - ordered)
    assert (difference <= bound).all()
    assert difference.any(), "sums of ranks have the bits of one rank"


@pytest.mark.parametrize("name", ("mixtral", "deepseek_v3", "deepspeed_top2", "deepspeed_topk",
                                  "switch_passthrough", "moe_plus_plus", "llama4", "gpt_oss",
                                  "expert_choice", "residual_moe"))
def test_layers_with_sums(name):
    """Against one rank: a rounding of each rank's sum apart."""
    kinds = {"moe_plus_plus": 5}
    counts = [17, 0, 29]
    expected = results_of(compiled_layers.layer(name, "f32")(
        **data.inputs_of(name, sum(counts))))
    got = call(name, "f32", counts, f"{kinds.get(name, E)},reduce=per_rank")
    for ours, theirs in zip(got, expected, strict=True):
        scale = np.abs(theirs).max(-1, keepdims=True) if theirs.ndim > 1 else 1
        assert (np.abs(ours.astype(np.float64) - theirs) <= 2e-6 * scale + 1e-7).all()


def test_sums_send_fewer_bytes():
    """A row of a token comes home from a rank, not one of each choice."""
    text, given = numbers("bf16")
    table = moe.parallel.placement(E, 2)
    own = given["ids"] // (E // 2)
    inputs = ranks.split({key: given[key] for key in ("x", "ids", "weights")}, [45, 0])

    def bytes_home(options: str) -> int:
        path = moe.compile(text, options=[f"--parallel={E // 2}{options}"]).path.read_bytes()

        def on_rank(communicator):
            group = moe.parallel.Group(communicator, num_threads=1, way="all_to_all")
            layer = moe.load(path, group=group).layer({"w": given["w"]}, table=table)
            layer(**inputs[group.rank])
            return layer.exchange.bytes_sent

        return ranks.run(2, on_rank)[1]

    there = (given["ids"] >= 0) & (own == 1)
    assert bytes_home("") == 2 * H * there.sum()
    assert bytes_home(",reduce=per_rank") == 2 * H * there.any(1).sum() < 2 * H * there.sum()


def test_scope_and_sums_together():
    counts = [30, 11, 20]
    got = call("deepspeed_top2", "f32", counts, "ranks=3:2,reduce=per_rank,scope=rank")[0]
    np.testing.assert_allclose(got, each_rank_alone("deepspeed_top2", counts)[0], rtol=0,
                               atol=2e-6 * np.abs(got).max())


@pytest.mark.parametrize("options, message", (
    (["--parallel=4,reduce=sum"], "--parallel: expected SLOTS"),
    (["--parallel=4,scope"], "--parallel: expected SLOTS"),
    (["--parallel=4,reduce=per_rank", "--backward=all"],
     "expected reduce = ordered in moe.parallel to differentiate a function over ranks, got "
     "per_rank")))
def test_wrong_options(options, message):
    with pytest.raises(moe.MoEError) as caught:
        moe.compile(layers.text("mixtral", "f32"), options=options)
    assert message in str(caught.value)
