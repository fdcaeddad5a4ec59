"""Calls through the extension moe._native: what it takes, and that it changes nothing else."""

from __future__ import annotations

import gc
import sys
import threading

import moe
import numpy as np
import pytest
from moe import _caller

TEXT = """\
func.func @twice(%x: tensor<?x8xTYPE> {moe.role = "input", moe.name = "x"},
                 %y: tensor<?x8xTYPE> {moe.role = "input", moe.name = "z"})
    -> tensor<?x8xTYPE> {
  %0 = arith.addf %x, %y : tensor<?x8xTYPE>
  return %0 : tensor<?x8xTYPE>
}
"""


def make(dtype="f32"):
    return moe.compile(TEXT.replace("TYPE", dtype)).layer()


def direct(layer, *inputs, out=None, workspace=None):
    return layer._caller(layer._handle.pointer, inputs, out, workspace)


@pytest.fixture
def layer(compiled):
    return make()


def inputs(tokens=3):
    x = np.arange(tokens * 8, dtype=np.float32).reshape(tokens, 8)
    return x, x + 1


@pytest.mark.parametrize("tokens", [0, 1, 5])
def test_numpy(layer, tokens):
    x, y = inputs(tokens)
    out, workspace = np.zeros_like(x), np.zeros(layer.workspace_bytes(tokens) + 64, np.uint8)
    workspace = workspace[-workspace.ctypes.data % 64:]
    got = direct(layer, x, y)
    assert type(got) is np.ndarray and got.dtype == np.float32
    np.testing.assert_array_equal(got, x + y)
    assert direct(layer, x, y, out=out, workspace=workspace) is out
    np.testing.assert_array_equal(out, x + y)
    np.testing.assert_array_equal(layer(z=y, x=x), x + y)  # by name, which it does not take


def test_types(compiled):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    for dtype, ours in ((ml_dtypes.bfloat16, "bf16"), (np.float16, "f16")):
        layer = make(ours)
        x, y = (a.astype(dtype) for a in inputs())
        got = direct(layer, x, y)
        assert got.dtype == dtype
        np.testing.assert_array_equal(got.astype(np.float32), (x + y).astype(np.float32))


def test_torch(layer):
    torch = pytest.importorskip("torch")
    x, y = (torch.from_numpy(a) for a in inputs())
    layer(x, y)  # torch may have been imported after the layer was made
    got = direct(layer, x, torch.nn.Parameter(y, requires_grad=False))
    assert type(got) is torch.Tensor and torch.equal(got, x + y)
    out = torch.empty_like(x)
    assert direct(layer, x, y.numpy(), out=out) is out and torch.equal(out, x + y)
    bf16 = make("bf16")
    got = direct(bf16, x.bfloat16(), y.bfloat16())
    assert torch.equal(got, x.bfloat16() + y.bfloat16())


def hostile(torch):
    """Inputs and outputs that the extension leaves to Python's code or has to refuse."""
    x, y = inputs()
    frozen = np.zeros_like(x)
    frozen.flags.writeable = False
    yield "one input", (x,), {}
    yield "three inputs", (x, y, y), {}
    yield "strided", (np.asfortranarray(x), y), {}
    yield "swapped", (x.astype(">f4"), y), {}
    yield "another type", (x.astype(np.float64), y), {}
    yield "no type of ours", (x.astype(np.complex64), y), {}
    yield "objects", (x.astype(object), y), {}
    yield "text", ("x", y), {}
    yield "none", (None, y), {}
    yield "another rank", (x[None], y), {}
    yield "no rank", (np.float32(1), y), {}
    yield "many ranks", (np.zeros((1,) * 12, np.float32), y), {}
    yield "other tokens", (x[:2], y), {}
    yield "other columns", (x[:, :4].copy(), y[:, :4].copy()), {}
    yield "a subclass", (np.ma.masked_array(x), y), {}
    yield "read-only output", (x, y), {"out": frozen}
    yield "small output", (x, y), {"out": np.zeros((2, 8), np.float32)}
    yield "output in a list", (x, y), {"out": [np.zeros_like(x)]}
    yield "output is an input", (x, y), {"out": x}
    yield "small workspace", (x, y), {"workspace": np.zeros(1, np.uint8)}
    yield "strided workspace", (x, y), {"workspace": np.zeros(4096, np.uint8)[::2]}
    if torch is None:
        return
    a, b = torch.from_numpy(x), torch.from_numpy(y)
    yield "gradient", (a.clone().requires_grad_(), b), {}
    yield "transposed", (a.t().contiguous().t(), b), {}
    yield "negated", (torch.complex(a, -a).conj().imag, b), {}
    yield "sparse", (a.to_sparse(), b), {}
    yield "no memory", (torch.empty(3, 8, device="meta"), b), {}
    yield "nested", (torch.nested.nested_tensor([a, b]), b), {}
    yield "torch's other type", (a.double(), b), {}
    yield "quantised", (torch.quantize_per_tensor(a, 1.0, 0, torch.qint8), b), {}


def outcome(layer, arguments, options):
    try:
        result = layer(*arguments, **options)
        result = result[0] if isinstance(result, list | tuple) else result
        return np.asarray(result).tolist()
    except Exception as error:  # noqa: BLE001 - which it is, is compared
        return type(error), str(error)


def test_hostile_arguments_have_the_results_of_pythons_code(layer):
    try:
        import torch
    except ImportError:
        torch = None
    if torch is not None:
        layer(*map(torch.from_numpy, inputs()))
    native, refused = layer._caller, 0
    for name, arguments, options in hostile(torch):
        kept = [np.array(a, copy=True) if type(a) is np.ndarray else a for a in arguments]
        layer._caller = native
        with_native = outcome(layer, arguments, options)
        layer._caller = None
        for old, new in zip(kept, arguments):
            if type(new) is np.ndarray and new is not options.get("out"):
                assert np.array_equal(old, new), name
        assert with_native == outcome(layer, arguments, options), name
        refused += isinstance(with_native, tuple)
    assert refused >= 15


def test_derivatives_are_left_to_pythons_code(layer):
    torch = pytest.importorskip("torch")
    x, y = (torch.from_numpy(a) for a in inputs())
    assert direct(layer, x, y.clone().requires_grad_()) is NotImplemented
    with torch.autograd.forward_ad.dual_level():
        assert direct(layer, torch.autograd.forward_ad.make_dual(x, x), y) is NotImplemented
    with pytest.raises(moe.MoEError, match="no memory of its own"):
        torch.vmap(layer, in_dims=(0, None))(torch.stack([x, x]), y)


def test_references_and_threads(layer):
    x, y = inputs()
    out = np.empty_like(x)
    bad = x.astype(np.float64)

    def call(times):
        for _ in range(times):
            direct(layer, x, y, out=out)
            direct(layer, x, y)
            assert direct(layer, x) is NotImplemented
            with pytest.raises(moe.MoEError):
                direct(layer, bad, y)

    call(10)
    gc.collect()
    before = [sys.getrefcount(o) for o in (x, y, out, bad, x.dtype, layer._caller)]
    threads = [threading.Thread(target=call, args=(200,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    after = [sys.getrefcount(o) for o in (x, y, out, bad, x.dtype, layer._caller)]
    assert after == before


def test_a_file_of_another_version(tmp_path, monkeypatch, recwarn):
    """It is not used, and says so."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / _caller.FILE).write_bytes(b"no library")
    monkeypatch.setenv("MOE_BUILD_DIR", str(tmp_path))
    _caller.extension.cache_clear()
    try:
        assert _caller.extension() is None
        assert "calls go through ctypes" in str(recwarn.pop(RuntimeWarning).message)
    finally:
        _caller.extension.cache_clear()
