"""Ranks that are called with the same tokens have the results of one rank on them."""

from __future__ import annotations

import functools
import resource

import moe
import numpy as np
import pytest
from moe_testing import compiled_layers, data, layers, ranks
from moe_testing.layers import E


@functools.cache
def artifact(name: str, dtype: str, *options: str) -> bytes:
    return moe.compile(layers.text(name, dtype), options=list(options)).path.read_bytes()


def on_ranks(name: str, dtype: str, tokens: int, size: int, parallel: str, table=None,
             **options) -> list[list[np.ndarray]]:
    """The outputs of each rank."""
    inputs, weights = data.inputs_of(name, tokens, dtype), data.weights_of(name, dtype)

    def on_rank(communicator):
        group = moe.parallel.Group(communicator, num_threads=1, tokens="replicated", **options)
        module = moe.load(artifact(name, dtype, f"--parallel={parallel}"), group=group)
        result = module.layer(weights, table=table)(**inputs)
        return list(result) if isinstance(result, tuple) else [result]

    return ranks.run(size, on_rank)


def check(name: str, dtype: str, tokens: int, size: int, parallel: str, *args, **options) -> None:
    expected = compiled_layers.layer(name, dtype)(**data.inputs_of(name, tokens, dtype))
    expected = list(expected) if isinstance(expected, tuple) else [expected]
    for got in on_ranks(name, dtype, tokens, size, parallel, *args, **options):
        for ours, theirs in zip(got, expected, strict=True):
            assert (data.bits(ours) == data.bits(theirs)).all(), (size, tokens)


@pytest.mark.parametrize("size", (1, 2, 3, 4))
@pytest.mark.parametrize("name, dtype", (
    ("mixtral", "f32"), ("deepseek_v3", "bf16"), ("deepspeed_top2", "f32"),
    ("expert_choice", "f32"), ("given_route", "f32"), ("llama4", "f16")))
def test_layers(name, dtype, size):
    check(name, dtype, 37, size, str(E))
    # Fewer tokens than ranks.
    check(name, dtype, 1, size, str(E))


@pytest.mark.parametrize("way", ("all_to_all", "peer", "all_gather"))
def test_ways(way):
    check("mixtral", "f32", 41, 3, "ranks=3", way=way)
    check("deepspeed_top2", "f32", 41, 3, "ranks=3", way=way)


def test_placements_rounds_and_chunks():
    table = np.array([[7, 0, 5, -1], [1, 2, 6, 5], [3, 4, -1, 0]], np.int32)
    check("mixtral", "f32", 53, 3, "4:2", table)
    check("mixtral", "f32", 203, 3, "ranks=3", memory_limit=60_000)
    check("mixtral", "f32", 103, 3, "ranks=3", chunks=4)
    check("mixtral", "f32", 0, 3, "ranks=3")


def test_what_differs_between_ranks():
    """A number of tokens, or the option, that is not that of the others."""
    inputs, weights = data.inputs_of("mixtral", 9, "f32"), data.weights_of("mixtral", "f32")

    def on_rank(communicator):
        rank = communicator.raw.rank
        with pytest.raises(moe.MoEError, match="rank 1 has option tokens 1, rank 0 has 0, expected "
                                               "the same on all ranks") as caught:
            moe.parallel.Group(communicator, tokens=("sharded", "replicated")[rank])
        assert caught.value.code == moe.INVALID_ARGUMENT
        with pytest.raises(moe.MoEError, match="tokens is 'all', expected one of"):
            moe.parallel.Group(communicator, tokens="all")
        group = moe.parallel.Group(communicator, num_threads=1, tokens="replicated")
        layer = moe.load(artifact("mixtral", "f32", "--parallel=ranks=2"), group=group).layer(
            weights)
        with pytest.raises(moe.MoEError, match="rank 1 has tokens 8, rank 0 has 9, expected the "
                                               "same on all ranks") as caught:
            layer(**{name: array[rank:] for name, array in inputs.items()})
        assert caught.value.code == moe.INVALID_ARGUMENT
        # The group goes on.
        return layer(**inputs)

    first, second = ranks.run(2, on_rank)
    assert (data.bits(first) == data.bits(second)).all()


def test_gradients():
    """Gradients of rows and of experts have the bits of one rank."""
    name, size = "mixtral", 2
    weights, inputs = data.weights_of(name, "f32"), data.inputs_of(name, 21, "f32")
    upstream = data.rng("gradients", name).standard_normal(
        (21, data.weights_of(name, "f32")["down_proj"].shape[1])).astype(np.float32)

    def gradients(layer, backward):
        y, saved = layer.forward(**inputs)
        return [y, *backward.backward(saved, inputs["x"], upstream)]

    def on_rank(communicator):
        options = {} if communicator.raw.size == 1 else {"tokens": "replicated"}
        group = moe.parallel.Group(communicator, num_threads=1, **options)
        module = moe.load(artifact(name, "f32", "--parallel=8", "--backward=all"), group=group)
        layer = module.layer(weights, function="layer")
        backward = module.layer(weights, function="layer_backward")
        outputs = [each.name for each in backward.signature.outputs]
        table = moe.parallel.placement(E, communicator.raw.size)[communicator.raw.rank]
        return dict(zip(["y", *outputs], gradients(layer, backward), strict=True)), table

    one, _ = ranks.run(1, on_rank)[0]
    both = ranks.run(size, on_rank)
    names = list(one)
    for found, own in both:
        for each in names[:2]:  # of the layer, and of x
            assert (data.bits(found[each]) == data.bits(one[each])).all(), each
        for each in names:
            if one[each].ndim == 3:
                own = own[own >= 0]
                assert (data.bits(found[each][own]) == data.bits(one[each][own])).all(), each


def test_way_that_is_chosen():
    """Where ranks cannot read one another's memory, a layer whose tokens go to nearly all ranks
    sends all tokens to all of them."""
    def ways(name, size, **options):
        inputs, weights = data.inputs_of(name, 24, "f32"), data.weights_of(name, "f32")

        def on_rank(communicator):
            # Neither the engine nor the system has memory to share.
            communicator.raw.features &= ~1
            group = moe.parallel.Group(communicator, num_threads=1, **options)
            layer = moe.load(artifact(name, "f32", f"--parallel={E}"), group=group).layer(weights)
            result = layer(**inputs)
            assert group.way == "all_to_all"
            return layer.exchange.way, result

        found = ranks.run(size, on_rank)
        assert len({way for way, _ in found}) == 1
        return found[0][0]

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        # 1 - C(4, 2) / C(8, 2) = 78.6 % of the tokens go to each of two ranks.
        assert ways("mixtral", 2) == "all_to_all"
        # All experts that a gate may choose are those of experts that choose tokens.
        assert ways("expert_choice", 2) == "all_gather"
        assert ways("expert_choice", 2, chunks=2) == "all_to_all"
        assert ways("expert_choice", 2, memory_limit=1 << 30) == "all_to_all"
        assert ways("expert_choice", 2, way="all_to_all") == "all_to_all"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
