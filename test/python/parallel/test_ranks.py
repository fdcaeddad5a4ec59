"""Layers over several ranks have the bits of one rank on the tokens of all."""

from __future__ import annotations

import functools

import moe
import numpy as np
import pytest
from moe_testing import compiled_layers, data, layers, ranks
from moe_testing.layers import E


# Layers whose experts are under other experts stay on one rank.
SPREAD = [name for name in layers.FAMILIES if name != "hierarchical"]
# How many experts are spread, if some of other kinds run where the tokens are.
KINDS = {"moe_plus_plus": 5}


@functools.cache
def artifact(name: str, dtype: str, parallel: str) -> bytes:
    module = moe.compile(layers.text(name, dtype), options=[f"--parallel={parallel}"])
    return module.path.read_bytes()


def module_of(name: str, dtype: str, parallel: str):
    return lambda group: moe.load(artifact(name, dtype, parallel), group=group)


def one_rank(name: str, dtype: str, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    result = compiled_layers.layer(name, dtype)(**inputs)
    return list(result) if isinstance(result, tuple) else [result]


def check(name: str, dtype: str, counts: list[int], parallel: str, table=None, **options) -> None:
    inputs = data.inputs_of(name, sum(counts), dtype)
    expected = one_rank(name, dtype, inputs)
    got = ranks.call(module_of(name, dtype, parallel), data.weights_of(name, dtype), inputs,
                     counts, table, **options)
    for ours, theirs in zip(got, expected, strict=True):
        assert (data.bits(ours) == data.bits(theirs)).all(), counts


@pytest.mark.parametrize("name", SPREAD)
def test_layers(name):
    # One artifact serves any number of ranks.
    for size in (1, 2, 5):
        check(name, "f32", ranks.shares(data.rng(name, size), 37, size),
              str(KINDS.get(name, E)))


@pytest.mark.parametrize("size", (2, 3, 4, 6, 7))
def test_placements(size):
    """Experts in any order, on several ranks, with as few slots as they need."""
    random = data.rng("placement", size)
    slots = -(-2 * E // size)
    entries = np.concatenate([random.permutation(E), np.full(size * slots - E, -1)])
    table = np.full((size, slots), -1, np.int32)
    rank = 0
    for expert in entries[:E]:
        for _ in range(random.integers(1, 3)):  # once or twice, on different ranks
            free = np.flatnonzero(table[rank] < 0)
            if len(free) and expert not in table[rank]:
                table[rank, free[0]] = expert
            rank = (rank + 1) % size
    table = random.permuted(table, axis=1)
    assert set(range(E)) <= set(table.ravel().tolist())
    counts = ranks.shares(random, 53, size)
    check("deepseek_v3", "f32", counts, f"{slots}:2", table)
    check("mixtral", "f32", [0] * (size - 1) + [19], f"{slots}:2", table)
    check("switch", "f32", [0] * size, f"{slots}:2", table)


@pytest.mark.parametrize("name, dtype", (("mixtral", "f32"), ("deepseek_v3", "bf16")))
def test_moves(name, dtype):
    """After a move, a layer has the bits of one that was created with the table; weights that are
    prepared for the code move, too. A wrong table is an error on all ranks."""
    size, slots = 3, -(-2 * E // 3)
    random = data.rng("moves", name)
    inputs = data.inputs_of(name, 41, dtype)
    expected = one_rank(name, dtype, inputs)[0]
    parts = ranks.split(inputs, [20, 0, 21])
    tables = [np.stack([random.permutation(E)[:slots] for _ in range(size)]) for _ in range(12)]
    tables = [table for table in tables if len(set(table.ravel().tolist())) == E][:3]
    assert len(tables) == 3

    def on_rank(communicator):
        group = moe.parallel.Group(communicator, num_threads=1)
        layer = module_of(name, dtype, f"{slots}:{size}")(group).layer(data.weights_of(name, dtype))
        results = [layer(**parts[group.rank])]
        for table in [*tables, None]:
            layer.move(table)
            results.append(layer(**parts[group.rank]))
            with pytest.raises(moe.MoEError, match="rank 1|expected integers") as caught:
                layer.move([[0.5]] if group.rank == 1 else tables[0])
                raise moe.MoEError(13, "rank 1 was let through")
            assert caught.value.code == moe.INVALID_ARGUMENT
        return results

    for got in zip(*ranks.run(size, on_rank), strict=True):
        assert (data.bits(np.concatenate(got)) == data.bits(expected)).all()


@pytest.mark.parametrize("name", ("mixtral", "deepspeed_top2", "deepseek_v3"))
def test_rounds(name):
    """A limit of memory makes rounds, with the same bits; a shared expert runs once."""
    check(name, "f32", [40, 3, 61], "ranks=3", memory_limit=60_000)
    # So do chunks, which are exchanged while others are computed.
    check(name, "f32", [40, 0, 61], "ranks=3", chunks=4)


@pytest.mark.parametrize("way", ("all_to_all", "peer", "all_gather"))
@pytest.mark.parametrize("name", ("deepseek_v3", "deepspeed_top2", "expert_choice", "llama4",
                                  "mixtral"))
def test_ways(name, way):
    check(name, "f32", [17, 0, 29], "ranks=3", way=way)


def test_ways_of_a_group():
    def on_rank(communicator):
        ways = []
        for options in ({}, {"chunks": 2}, {"memory_limit": 9999 * (communicator.raw.rank == 1)},
                        {"way": "all_gather"}):
            ways.append(moe.parallel.Group(communicator, num_threads=1, **options).way)
        with pytest.raises(moe.MoEError, match="rank [01] has way [02], rank 0 has 2"):
            moe.parallel.Group(communicator, way=("peer", "auto")[communicator.raw.rank])
        with pytest.raises(moe.MoEError, match="chunks is 3, expected 0 or 1 for way 3"):
            moe.parallel.Group(communicator, way="all_gather", chunks=3)
        with pytest.raises(moe.MoEError, match="way is 'mail', expected one of"):
            moe.parallel.Group(communicator, way="mail")
        return ways

    assert ranks.run(2, on_rank) == [["peer", "all_to_all", "all_to_all", "all_gather"]] * 2


def test_experts_under_experts_are_refused():
    with pytest.raises(moe.MoEError, match="uses the offsets"):
        artifact("hierarchical", "f32", "4")


@pytest.mark.parametrize("dtype", ("bf16", "f16"))
@pytest.mark.parametrize("name", ("mixtral", "deepseek_v3", "deepspeed_top2"))
def test_types(name, dtype):
    check(name, dtype, [12, 0, 29], "ranks=3")
