"""moe.keep, moe.place, moe.partition and moe.collect against numpy."""

from __future__ import annotations

import moe
import numpy as np
import pytest
from moe import reference
from moe_testing import data

CASES = [(0, 2, 3, 2, 1), (1, 1, 1, 1, 1), (9, 2, 4, 2, 1), (33, 4, 7, 3, 2), (64, 8, 16, 5, 3)]


def text(k: int, experts: int, slots: int, replicas: int) -> str:
    return f"""
func.func @sender(%ids: tensor<?x{k}xi32>, %placement: tensor<{experts}x{replicas}xi32>)
    -> (tensor<?x{k}xi32>, tensor<?x{k}x{k}xi32>, tensor<{experts}xi32>, tensor<?x{k}xi32>,
        tensor<{experts}xi32>, tensor<?x{k}xi32>) {{
  %s = moe.place %ids, %placement : tensor<?x{k}xi32>, tensor<{experts}x{replicas}xi32>
  %t, %l, %n, %h, %r = moe.partition %s slots({slots}) ranks({experts}) : tensor<?x{k}xi32>
  %kept = moe.keep %ids experts({experts}) capacity(<fixed = 3>) : tensor<?x{k}xi32>
  return %t, %l, %n, %h, %r, %kept : tensor<?x{k}xi32>, tensor<?x{k}x{k}xi32>,
    tensor<{experts}xi32>, tensor<?x{k}xi32>, tensor<{experts}xi32>, tensor<?x{k}xi32>
}}
func.func @receiver(%positions: tensor<?x{k}xi32>, %received: tensor<{experts}xi32>)
    -> (tensor<?x{k}xi32>, tensor<{experts}xi32>) {{
  %o, %r = moe.collect %positions, %received : tensor<?x{k}xi32>, tensor<{experts}xi32>
  return %o, %r : tensor<?x{k}xi32>, tensor<{experts}xi32>
}}"""


@pytest.mark.parametrize("pipeline", ("moe-cpu", "moe-reference"))
@pytest.mark.parametrize("tokens,k,experts,slots,replicas", CASES)
def test_operations(tokens, k, experts, slots, replicas, pipeline):
    module = moe.compile(text(k, experts, slots, replicas), options=[f"--pipeline={pipeline}"])
    random = data.rng(tokens, k, experts)
    ids = np.array([random.permutation(experts)[:k] for _ in range(tokens)] or
                   np.zeros((0, k)), np.int32)
    ids[random.random(ids.shape) < 0.2] = -1
    # Each expert has one slot to `replicas`; expert 0 has none.
    placement = np.full((experts, replicas), -1, np.int32)
    for expert in range(1, experts):
        count = random.integers(1, replicas + 1)
        placement[expert, :count] = random.integers(0, slots * experts, count)
    got = module.layer([], function="sender")(ids, placement)
    expected = (*reference.partition(reference.place(ids, placement), num_slots=slots,
                                     num_ranks=experts),
                reference.keep(ids, num_experts=experts, capacity=reference.Capacity(fixed=3)))
    for ours, theirs in zip(got, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)

    positions = random.permutation(tokens * k).reshape(tokens, k).astype(np.int32)
    positions[random.random(positions.shape) < 0.3] = -1
    received = random.multinomial(tokens, np.ones(experts) / experts).astype(np.int32)
    got = module.layer([], function="receiver")(positions, received)
    for ours, theirs in zip(got, reference.collect(positions, received), strict=True):
        np.testing.assert_array_equal(ours, theirs)
