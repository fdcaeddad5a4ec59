"""Modules and layers as Python objects: copies, gradients, the library behind them."""

from __future__ import annotations

import copy
import pickle
import subprocess

import moe
import numpy as np
import pytest
from moe import _library
from moe._call import Calls

TEXT = """\
func.func @same(%x: tensor<?x2xf32> {moe.role = "input", moe.name = "x"}) -> tensor<?x2xf32> {
  return %x : tensor<?x2xf32>
}
"""


@pytest.fixture
def layer(compiled):
    return moe.compile(TEXT).layer()


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_copies_are_refused(layer, copied):
    """They would free the memory behind them twice."""
    for one in (layer, layer.module, layer._handle, Calls(layer).call):
        with pytest.raises(TypeError, match=r"cannot pickle or copy a moe\.\w+: it is code and"):
            copied(one)
        with pytest.raises(TypeError):
            copied({"inside": [one]}) if copied is not copy.copy else copied(one)
    x = np.ones((3, 2), np.float32)
    np.testing.assert_array_equal(layer(x), x)


def test_gradients_are_refused(layer):
    torch = pytest.importorskip("torch")
    x = torch.ones(3, 2, requires_grad=True)
    with pytest.raises(moe.MoEError, match="input 'x' requires a gradient, and layers have none"):
        layer(x)
    for free in (torch.no_grad, torch.inference_mode):
        with free():
            assert torch.equal(layer(x), x)
    assert not layer(x.detach()).requires_grad
    with pytest.raises(moe.MoEError, match="output '.*' requires a gradient"):
        layer(x.detach(), out=torch.zeros(3, 2, requires_grad=True))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x.detach(), x.detach())
        with pytest.raises(moe.MoEError, match="input 'x' requires a gradient"):
            layer(dual)


def test_tensors_without_memory(layer):
    torch = pytest.importorskip("torch")
    x = torch.ones(3, 2)
    with pytest.raises(moe.MoEError, match="input 'x': the tensor has no memory of its own"):
        torch.vmap(layer)(torch.stack([x, x]))
    freed = x.clone()
    freed.untyped_storage().resize_(0)
    with pytest.raises(moe.MoEError, match="input 'x' has no data, expected 24 bytes"):
        layer(freed)


@pytest.mark.parametrize("call, what", [
    (lambda layer: layer.workspace_bytes(2 ** 64), "tokens is 18446744073709551616, expected an"),
    (lambda layer: layer.workspace_bytes(1.5), "tokens is 1.5, expected an integer"),
    (lambda layer: layer.module.layer(function=3), "function is 3, expected its name"),
    (lambda layer: moe.load(b"", num_threads=2 ** 64), "num_threads is 18446744073709551616")])
def test_arguments(layer, call, what):
    with pytest.raises(moe.MoEError, match=what):
        call(layer)


@pytest.mark.parametrize("source, found", [
    ("int moe_rt_abi_version(void) { return 2; }", "2"), ("int other;", "an older one")])
def test_a_library_of_another_abi(tmp_path, monkeypatch, source, found):
    (tmp_path / "rt.c").write_text(source)
    library = tmp_path / "libmoe_rt.so"
    try:
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "rt.c"], check=True)
    except FileNotFoundError:
        pytest.skip("no C compiler")
    monkeypatch.setenv("MOE_RT_LIBRARY", str(library))
    monkeypatch.setattr(_library, "_library", None)
    with pytest.raises(moe.MoEError, match=f"{library} has ABI {found}, expected 4") as caught:
        moe.compile(TEXT)
    assert caught.value.code == moe.FAILED_PRECONDITION
