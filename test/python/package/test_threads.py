"""Threads of a layer: those of PyTorch, and its own."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import moe
import numpy as np
import pytest
from moe_testing import data, layers

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.usefixtures("compiled"),
    pytest.mark.skipif("OpenMP" not in torch.__config__.parallel_info().split("backend:")[-1],
                       reason="this PyTorch has threads of its own")]


@pytest.fixture
def two_threads(monkeypatch):
    """PyTorch with two threads, which layers may use."""
    monkeypatch.delenv("MOE_OPENMP", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def module(num_threads=0):
    return moe.compile(layers.text("mixtral", "bf16"), num_threads=num_threads)


def bound(num_threads=0):
    return module(num_threads).layer(data.weights_of("mixtral", "bf16"))


def inputs(tokens):
    return data.inputs_of("mixtral", tokens, "bf16")["x"]


def bits(array):
    return array.view(np.uint16)


def test_which_threads(two_threads, monkeypatch):
    assert module().uses_openmp
    assert not module(1).uses_openmp and not module(2).uses_openmp
    with monkeypatch.context() as patch:
        patch.setenv("MOE_OPENMP", "0")
        assert not module().uses_openmp
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "torch")
        assert not module().uses_openmp


def test_the_same_bits(two_threads):
    theirs, ours, alone = bound(), bound(2), bound(1)
    for tokens in (0, 1, 7, 65):
        x = inputs(tokens)
        expected = bits(alone(x))
        for _ in range(3):
            torch.ones(100, 100) @ torch.ones(100, 100)  # on the same threads
            np.testing.assert_array_equal(bits(theirs(x)), expected)
            np.testing.assert_array_equal(bits(ours(x)), expected)
    torch.set_num_threads(1)
    np.testing.assert_array_equal(bits(theirs(x)), expected)


@pytest.mark.parametrize("own", [False, True])
def test_calls_from_many_threads(two_threads, own):
    bound_layers = [bound(2 if own else 0) for _ in range(2)]
    xs = [inputs(tokens) for tokens in (1, 9, 40)]
    expected = [bits(bound_layers[0](x)) for x in xs]
    start = threading.Barrier(4)

    def call(number):
        torch.set_num_threads(2)
        start.wait()
        for i in range(30):
            y = bound_layers[(number + i) % 2](xs[i % 3])
            np.testing.assert_array_equal(bits(y), expected[i % 3])
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(call, range(4)))


@pytest.mark.parametrize("own", [False, True])
def test_after_fork(two_threads, own):
    layer, x = bound(2 if own else 0), inputs(9)
    expected = bits(layer(x))
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if np.array_equal(bits(layer(x)), expected) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    np.testing.assert_array_equal(bits(layer(x)), expected)


def test_the_block_of_a_model(two_threads):
    """Router and experts in turn, on the same threads."""
    compiled_experts = pytest.importorskip("moe.integrations.transformers")
    from transformers import AutoConfig
    from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

    compiled_experts.register()
    config = AutoConfig.for_model("mixtral", hidden_size=32, intermediate_size=24,
                                  num_local_experts=4, num_experts_per_tok=2)
    torch.manual_seed(0)
    outputs = []
    for implementation in ("eager", compiled_experts.NAME):
        config._experts_implementation = implementation
        block = MixtralSparseMoeBlock(config).eval()
        if not outputs:
            state = {name: torch.randn_like(w) / 8 for name, w in block.state_dict().items()}
            x = torch.randn(1, 33, 32)
        block.load_state_dict(state)
        with torch.inference_mode():
            outputs.append(block(x))
    assert compiled_experts.layer_of(block.experts).module.uses_openmp
    scale = outputs[0].abs().max()
    assert scale > 0 and (outputs[1] - outputs[0]).abs().max() <= 1e-5 * scale
