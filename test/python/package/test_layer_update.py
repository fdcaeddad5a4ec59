"""``Layer.update``: other weights in the same layer."""

from __future__ import annotations

import gc
import threading
import time
import weakref

import moe
import numpy as np
import pytest

E, H, K = 4, 8, 2
TEXT = f"""\
func.func @f(%x: tensor<?x{H}xf32> {{moe.role = "input", moe.name = "x"}},
             %ids: tensor<?x{K}xi32> {{moe.role = "input", moe.name = "ids"}},
             %w: tensor<?x{K}xf32> {{moe.role = "input", moe.name = "w"}},
             %a: tensor<{E}x{H}x{H}xf32> {{moe.role = "weight", moe.name = "a"}},
             %bias: tensor<{E}x{H}xf32> {{moe.role = "weight", moe.name = "bias"}})
    -> tensor<?x{H}xf32> {{
  %zero = arith.constant 0.0 : f32
  %c0 = arith.constant 0 : index
  %g, %o, %p = moe.dispatch %x, %ids experts({E}) : tensor<?x{H}xf32>, tensor<?x{K}xi32>
  %y = moe.expert %g, %o params(%a, %bias : tensor<{E}x{H}x{H}xf32>, tensor<{E}x{H}xf32>) {{
  ^bb0(%r: tensor<?x{H}xf32>, %aa: tensor<{H}x{H}xf32>, %b: tensor<{H}xf32>):
    %n = tensor.dim %r, %c0 : tensor<?x{H}xf32>
    %e = tensor.empty(%n) : tensor<?x{H}xf32>
    %f = linalg.fill ins(%zero : f32) outs(%e : tensor<?x{H}xf32>) -> tensor<?x{H}xf32>
    %h = linalg.matmul ins(%r, %aa : tensor<?x{H}xf32>, tensor<{H}x{H}xf32>)
        outs(%f : tensor<?x{H}xf32>) -> tensor<?x{H}xf32>
    %s = linalg.generic {{indexing_maps = [affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (j)>,
        affine_map<(i, j) -> (i, j)>], iterator_types = ["parallel", "parallel"]}}
        ins(%h, %b : tensor<?x{H}xf32>, tensor<{H}xf32>) outs(%e : tensor<?x{H}xf32>) {{
    ^bb1(%u: f32, %v: f32, %old: f32):
      %sum = arith.addf %u, %v : f32
      linalg.yield %sum : f32
    }} -> tensor<?x{H}xf32>
    moe.yield %s : tensor<?x{H}xf32>
  }} : tensor<?x{H}xf32>, tensor<{E + 1}xi32> -> tensor<?x{H}xf32>
  %z = moe.combine %y, %p weights(%w : tensor<?x{K}xf32>) : tensor<?x{H}xf32>, tensor<?x{K}xi32>
  return %z : tensor<?x{H}xf32>
}}
"""


@pytest.fixture(scope="module")
def module(compiled):
    return moe.compile(TEXT, num_threads=1)


def draw(seed):
    r = np.random.default_rng(seed)
    return {"a": r.standard_normal((E, H, H), np.float32),
            "bias": r.standard_normal((E, H), np.float32)}


def inputs(tokens=5):
    r = np.random.default_rng(7)
    return (r.standard_normal((tokens, H), np.float32),
            r.integers(0, E, (tokens, K), np.int32), np.ones((tokens, K), np.float32))


def expected(weights):
    x, ids, _ = inputs()
    return sum(np.einsum("th,thi->ti", x, weights["a"][ids[:, k]]) + weights["bias"][ids[:, k]]
               for k in range(K))


def test_update(module):
    layer, other = module.layer(draw(0)), module.layer(draw(0))
    assert {i.name: i.retained for i in layer.signature.weights} == {"a": False, "bias": True}
    for weights in (draw(1), draw(2)):
        layer.update(weights)
        np.testing.assert_allclose(layer(*inputs()), expected(weights), atol=1e-5)
    layer.update([draw(3)["a"], draw(3)["bias"]])
    np.testing.assert_allclose(layer(*inputs()), expected(draw(3)), atol=1e-5)
    np.testing.assert_allclose(other(*inputs()), expected(draw(0)), atol=1e-5)
    # One layer, as far as what it has counted goes.
    statistics, = layer.statistics()
    assert (statistics.calls, statistics.choices) == (3, 3 * 5 * K)
    assert statistics.tokens_per_expert.sum() == 3 * 5 * K
    layer.reset_statistics()
    layer.enable_statistics(False)
    layer.update(draw(4))
    layer(*inputs())
    assert layer.statistics()[0].calls == 0


def test_in_place(module):
    """The same bits as a new layer, and one layer as far as what it has counted goes."""
    layer, weights = module.layer(draw(0)), draw(0)
    size, first = layer.weight_bytes, layer(*inputs())
    for seed in (1, 2):
        weights = draw(seed)
        layer.update(weights, in_place=True)
        assert np.array_equal(layer(*inputs()), module.layer(weights)(*inputs()))
        weights["a"][:] = np.nan  # prepared, and read no more
        assert np.isfinite(layer(*inputs())).all()
    weights["bias"][:] = 0  # read where it is
    assert not np.array_equal(layer(*inputs()), module.layer(draw(2))(*inputs()))
    assert layer.weight_bytes == size and layer.statistics()[0].calls == 6
    thread = threading.Thread(target=lambda: layer.update(draw(0), in_place=True))
    thread.start()
    thread.join()
    assert np.array_equal(layer(*inputs()), first)


def test_in_place_keeps_what_it_reads(module):
    weights = draw(0)
    layer, old = module.layer(weights), weakref.ref(weights["bias"])
    weights = draw(1)
    layer.update(weights, in_place=True)
    new = weakref.ref(weights["bias"])
    del weights
    gc.collect()
    assert old() is None and new() is not None
    np.testing.assert_allclose(layer(*inputs()), expected(draw(1)), atol=1e-5)


@pytest.mark.parametrize("quantize", ["int8:8", "fp8:4x4"])
def test_in_place_of_quantized_weights(quantize, compiled):
    """Formats of packed weights, whose errors are measured again."""
    module = moe.compile(TEXT, num_threads=1, quantize=quantize)
    layer = module.layer(draw(0))
    before, large = layer.quantization_errors, draw(1)
    large["a"] *= 1e3
    layer.update(large, in_place=True)
    fresh = module.layer(large)
    assert np.array_equal(layer(*inputs()), fresh(*inputs()))
    assert layer.quantization_errors == fresh.quantization_errors != before


def test_from_a_file(module, tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    layer = module.layer(draw(0))
    numpy.save_file(draw(1), tmp_path / "model.safetensors")
    with pytest.raises(moe.MoEError, match="in place: expected arrays, got <moe.Checkpoint"):
        layer.update(tmp_path, in_place=True)
    layer.update(tmp_path)
    np.testing.assert_allclose(layer(*inputs()), expected(draw(1)), atol=1e-5)
    with pytest.raises(moe.MoEError, match="the layer keeps weights of a source"):
        layer.update(draw(2), in_place=True)
    np.testing.assert_allclose(layer(*inputs()), expected(draw(1)), atol=1e-5)


@pytest.mark.parametrize("wrong, what", [
    ({"a": draw(0)["a"]}, "missing weights: bias"),
    ({**draw(0), "bias": np.zeros((E, H + 1), np.float32)}, "bias"), (3, "expected a mapping")])
def test_what_does_not_fit_changes_nothing(module, wrong, what):
    layer = module.layer(draw(0))
    for in_place in (False, True):
        with pytest.raises(moe.MoEError, match=what):
            layer.update(wrong, in_place=in_place)
    np.testing.assert_allclose(layer(*inputs()), expected(draw(0)), atol=1e-5)


def test_the_old_weights_go(module):
    weights = draw(0)
    layer, old = module.layer(weights), weakref.ref(weights["bias"])
    del weights
    gc.collect()
    assert old() is not None  # read where it is
    layer.update(draw(1))
    gc.collect()
    assert old() is None


def test_calls_meanwhile_see_one_of_both(module):
    """Weights that are all the same number: outputs of a mixture are multiples of none."""
    def same(number):
        return {"a": np.full((E, H, H), number, np.float32),
                "bias": np.full((E, H), number, np.float32)}

    layer, stop, seen = module.layer(same(1)), threading.Event(), []
    x, ids, w = np.ones((64, H), np.float32), inputs(64)[1], np.ones((64, K), np.float32)
    from moe._call import Call

    def through_layer():
        while not stop.is_set():
            seen.append(layer(x, ids, w).copy())

    def through_call():
        call, out = Call(layer), np.empty((64, H), np.float32)
        while not stop.is_set():
            call(64, [a.ctypes.data for a in (x, ids, w)], [out.ctypes.data])
            seen.append(out.copy())

    threads = [threading.Thread(target=t) for t in (through_layer, through_call)]
    for thread in threads:
        thread.start()
    # At least 200 updates, and more until the calls have seen two of the weights: on a busy
    # machine the threads may not run before.
    updates, deadline = 0, time.monotonic() + 60
    while updates < 200 or (len({y.flat[0] for y in list(seen)}) < 2 and
                            time.monotonic() < deadline):
        layer.update(same(1 + updates % 3))
        updates += 1
    stop.set()
    for thread in threads:
        thread.join()
    numbers = {float(y.flat[0]) for y in seen}
    assert all((y == y.flat[0]).all() for y in seen)
    assert numbers <= {K * (H + 1) * c for c in (1.0, 2.0, 3.0)} and len(numbers) > 1


def test_on_a_device(compiled):
    """What was enqueued before runs on the old weights, which stay until then."""
    from moe_testing.device import arrays as gpu
    from moe_testing.device import double

    double.needs_device()
    driver = gpu.driver()

    def upload(arrays):
        return {name: gpu.upload(array) for name, array in arrays.items()}

    layer = moe.compile(TEXT, target="sm_80", device="cuda").layer(upload(draw(0)))
    stream = driver.stream(blocking=False)
    given = [gpu.upload(array) for array in inputs()]
    first, second = gpu.empty("f32", (5, H)), gpu.empty("f32", (5, H))
    layer(*given, out=first, stream=stream)
    layer.update(upload(draw(1)))
    layer(*given, out=second, stream=stream)
    driver.wait(stream)
    np.testing.assert_allclose(gpu.download(first), expected(draw(0)), atol=1e-4)
    np.testing.assert_allclose(gpu.download(second), expected(draw(1)), atol=1e-4)
    assert layer.statistics()[0].calls == 2
    layer.poll()
    # In place it waits for those before.
    layer(*given, out=first, stream=stream)
    layer.update(upload(draw(2)), in_place=True)
    layer(*given, out=second, stream=stream)
    driver.wait(stream)
    np.testing.assert_allclose(gpu.download(first), expected(draw(1)), atol=1e-4)
    np.testing.assert_allclose(gpu.download(second), expected(draw(2)), atol=1e-4)
    layer.poll()
