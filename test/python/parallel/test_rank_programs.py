"""Spread layers by the definitions of moe.reference, apart from the runtime's exchanges.

The functions of a rank go to loops by the reference pipeline, as the layer of one rank does, so
that the bits are the same.
"""

from __future__ import annotations

import functools

import moe
import numpy as np
import pytest
from moe import reference
from moe_testing import data, layers, rank_programs, ranks
from moe_testing.layers import E

SPREAD = [name for name in layers.FAMILIES if name != "hierarchical"]
KINDS = {"moe_plus_plus": 5}


@functools.cache
def module(name: str, dtype: str, *options: str) -> moe.Module:
    return moe.compile(layers.text(name, dtype), options=["--pipeline=moe-reference", *options])


@functools.cache
def parts(name: str, dtype: str, options: str) -> rank_programs.Parts:
    return rank_programs.parts_of(layers.text(name, dtype), options)


def call(name: str, dtype: str, counts: list[int], parallel: str, table=None) -> list[np.ndarray]:
    """The layer with an option of --parallel over ranks; the outputs, whole."""
    slots, *others = parallel.split(",")
    number, _, replicas = slots.partition(":")
    option = number if number.startswith("ranks=") else f"slots={number}"
    return rank_programs.call(
        module(name, dtype, f"--parallel={parallel}"),
        parts(name, dtype, " ".join([option, f"replicas={replicas or 1}", *others])),
        data.weights_of(name, dtype), data.inputs_of(name, sum(counts), dtype), counts, table)


def check(name: str, dtype: str, counts: list[int], parallel: str, table=None) -> None:
    expected = module(name, dtype).layer(data.weights_of(name, dtype))(
        **data.inputs_of(name, sum(counts), dtype))
    expected = expected if isinstance(expected, tuple) else (expected,)
    got = call(name, dtype, counts, parallel, table)
    for ours, theirs in zip(got, expected, strict=True):
        assert (data.bits(ours) == data.bits(theirs)).all(), counts


@pytest.mark.parametrize("name", SPREAD)
def test_layers(name):
    for size in (1, 3):
        check(name, "f32", ranks.shares(data.rng(name, size), 23, size), str(KINDS.get(name, E)))


@pytest.mark.parametrize("size", (2, 5, 7))
def test_placements(size):
    """Experts in any order, some on two ranks; ranks without tokens."""
    random = data.rng("programs", size)
    table = np.full((size, E), -1, np.int32)
    for i, expert in enumerate(random.permutation(E)):
        table[i % size, i // size] = expert
        if i % 2:
            table[(i + 1) % size, E - 1 - i // size] = expert
    for name, dtype, counts in (("mixtral", "bf16", ranks.shares(random, 31, size)),
                                ("deepspeed_topk", "f32", [0] * (size - 1) + [19]),
                                ("expert_choice", "f32", ranks.shares(random, 31, size)),
                                ("switch", "f32", [0] * size)):
        check(name, dtype, counts, f"{E}:2", table)


@pytest.mark.parametrize("name", ("mixtral", "deepspeed_top2", "switch_passthrough",
                                  "moe_plus_plus"))
def test_sums_on_each_rank(name):
    """The bits of the runtime, with the same code."""
    counts, parallel = [9, 0, 20], f"{KINDS.get(name, E)},reduce=per_rank"
    path = module(name, "f32", f"--parallel={parallel}").path.read_bytes()
    got = ranks.call(lambda group: moe.load(path, group=group), data.weights_of(name),
                     data.inputs_of(name, sum(counts)), counts)
    for ours, theirs in zip(got, call(name, "f32", counts, parallel), strict=True):
        assert (data.bits(ours) == data.bits(theirs)).all()


@pytest.mark.parametrize("name", ("deepspeed_top2", "expert_choice"))
def test_capacities_of_each_rank(name):
    counts = [17, 0, 30]
    alone = module(name, "f32").layer(data.weights_of(name))
    expected = np.concatenate([alone(**part) for part in
                               ranks.split(data.inputs_of(name, sum(counts)), counts)])
    got = call(name, "f32", counts, "ranks=3,scope=rank")[0]
    assert (data.bits(got) == data.bits(expected)).all()


@pytest.mark.parametrize("size", (1, 2, 4))
def test_exchange_is_torchs(size):
    """moe.reference.exchange against all_to_all_single of gloo."""
    pytest.importorskip("torch")
    from moe_testing import processes

    random = data.rng("exchange", size)
    rows = [random.standard_normal((12, 5)).astype(np.float32) for _ in range(size)]
    send = [np.append(random.multinomial(random.integers(0, 12), np.ones(size) / size),
                      [0, 0]).astype(np.int32) for _ in range(size)]
    gather = [random.permutation(12).astype(np.int32) for _ in range(size)]
    got, received = reference.exchange([[each, each] for each in rows], send, gather)
    for rank, (whole, plain, counts) in enumerate(processes.run(size, by_torch, rows, send,
                                                                gather)):
        np.testing.assert_array_equal(got[rank][0], whole)
        np.testing.assert_array_equal(got[rank][1], plain)
        np.testing.assert_array_equal(received[rank], [*counts, 0, 0])


def by_torch(group, rows, send, gather):
    import torch
    import torch.distributed as dist

    rank, size = group.rank(), group.size()
    counts = torch.from_numpy(send[rank][:size].astype(np.int64))
    came = torch.empty_like(counts)
    dist.all_to_all_single(came, counts, group=group)

    def exchanged(listed):
        result = torch.empty((int(came.sum()), listed.shape[1]))
        dist.all_to_all_single(result, torch.from_numpy(listed[:int(counts.sum())].copy()),
                               came.tolist(), counts.tolist(), group=group)
        return result.numpy()

    own = rows[rank]
    return exchanged(own[gather[rank]]), exchanged(own), came.tolist()
