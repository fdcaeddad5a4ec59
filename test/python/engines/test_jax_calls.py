"""Compiled layers in programs of JAX, against the same functions in JAX.

`./dev check jax` runs this in an environment with JAX.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import subprocess
import sys
import threading
from pathlib import Path

import moe
import numpy as np
import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("jax") is None,
                                reason="jax is not installed; ./dev check jax installs it")

if importlib.util.find_spec("jax") is not None:
    import jax
    import jax.numpy as jnp
    from engines.test_jax import HIDDEN, TOP_K, import_block, maxtext, parameters, rows
    from moe.integrations._jax.xla_call import _native
    from moe.integrations.jax import to_jax

    XLA_ERRORS = ValueError, jax.errors.JaxRuntimeError

TOLERANCE = 2e-6

TWO = """\
func.func @two(%x: tensor<?x4xf32> {moe.role = "input", moe.name = "x"},
               %ids: tensor<?x2xi32> {moe.role = "input", moe.name = "ids"})
    -> (tensor<?x4xf32>, tensor<?x2xi32>) {
  %0 = arith.addf %x, %x : tensor<?x4xf32>
  %1 = arith.addi %ids, %ids : tensor<?x2xi32>
  return %0, %1 : tensor<?x4xf32>, tensor<?x2xi32>
}
"""
BY_IDS = """\
func.func @experts(%x: tensor<?x4xf32> {moe.role = "input", moe.name = "x"},
                   %ids: tensor<?x2xi32> {moe.role = "input", moe.name = "ids"},
                   %s: tensor<?x2xf32> {moe.role = "input", moe.name = "scores"})
    -> tensor<?x4xf32> {
  %rows, %offsets, %positions = moe.dispatch %x, %ids experts(3)
      : tensor<?x4xf32>, tensor<?x2xi32>
  %out = moe.combine %rows, %positions weights(%s : tensor<?x2xf32>)
      : tensor<?x4xf32>, tensor<?x2xi32>
  return %out : tensor<?x4xf32>
}
"""


def close(ours, theirs, tolerance=TOLERANCE):
    theirs = np.asarray(theirs, np.float64)
    assert np.abs(theirs).max() > 0
    assert np.abs(np.asarray(ours, np.float64) - theirs).max() <= tolerance * np.abs(theirs).max()


@pytest.fixture(scope="module")
def layer():
    return import_block(maxtext, parameters()).layer()


def in_numpy(x, p):
    """maxtext in f64, which takes XLA seconds to compile for each number of tokens."""
    x, p = np.asarray(x, np.float64), {name: np.asarray(w, np.float64) for name, w in p.items()}
    logits = x @ p["router"]
    ids = np.argsort(-logits, axis=-1, kind="stable")[:, :TOP_K]
    scores = np.exp(np.take_along_axis(logits, ids, -1) - logits.max(-1, keepdims=True))
    scores /= scores.sum(-1, keepdims=True)
    y = np.zeros_like(x)
    for k in range(TOP_K):
        gate, up = (np.einsum("th,thi->ti", x, p[name][ids[:, k]]) for name in ("wi_0", "wi_1"))
        rows = np.einsum("ti,tih->th", gate / (1 + np.exp(-gate)) * up, p["wo"][ids[:, k]])
        y += scores[:, k:k + 1] * rows
    return y


def block(x, f):
    """What a model has around experts."""
    return x + f(x / jnp.sqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6))


def test_in_a_program(layer):
    f, p = to_jax(layer), parameters()
    ours = jax.jit(lambda x: block(x, f))
    for tokens in (1, 33):
        x = jnp.asarray(rows(tokens))
        close(f(x), in_numpy(x, p))
        close(f(arg0=x), in_numpy(x, p))
        close(ours(x), block(x, lambda x: in_numpy(x, p)))
    close(ours(x), jax.jit(lambda x: block(x, lambda x: maxtext(x, p)))(x))
    assert f(jnp.zeros((0, HIDDEN))).shape == (0, HIDDEN)
    with jax.disable_jit():
        close(f(x), in_numpy(x, p))


def test_several_layers_in_one_program(layer):
    p, q = parameters(), parameters(seed=1)
    f, g = to_jax(layer), to_jax(import_block(maxtext, q).layer())
    x = jnp.asarray(rows(9))
    close(jax.jit(lambda x: f(g(x)) + g(f(x)))(x),
          in_numpy(in_numpy(x, q), p) + in_numpy(in_numpy(x, p), q), 1e-5)


def test_bfloat16():
    p = parameters("bfloat16")
    f = to_jax(import_block(maxtext, p, jnp.bfloat16).layer())
    x = jnp.asarray(rows(9), jnp.bfloat16)
    y = jax.jit(f)(x)
    assert y.dtype == jnp.bfloat16
    close(y, in_numpy(x, p), 2e-2)


def test_outputs_and_types(compiled):
    f = to_jax(moe.compile(TWO).layer())
    x, ids = jnp.arange(12.0).reshape(3, 4), jnp.arange(6, dtype=jnp.int32).reshape(3, 2)
    a, b = jax.jit(f)(x, ids)
    assert (a == 2 * x).all() and (b == 2 * ids).all() and b.dtype == jnp.int32
    with pytest.raises(moe.MoEError, match=r"'ids': expected int32\[T, 2\] with T = 3, got "
                       r"int32\[2, 2\]"):
        f(x, ids[:2])
    with pytest.raises(moe.MoEError, match=r"'ids': expected int32\[T, 2\].*got float32\[3, 4\]"):
        jax.jit(f)(x, x)
    with pytest.raises(moe.MoEError, match="expected 2 inputs, got 1"):
        f(x)
    with pytest.raises(moe.MoEError, match="no input 'z'"):
        f(x, z=ids)


def test_errors_of_a_call(compiled):
    """They are errors of XLA, with the layer's code and message; later calls run."""
    f = jax.jit(to_jax(moe.compile(BY_IDS).layer()))
    x, scores = jnp.ones((2, 4)), jnp.ones((2, 2))
    good, bad = jnp.array([[0, 1], [2, -1]], jnp.int32), jnp.array([[0, 1], [7, 0]], jnp.int32)
    with pytest.raises(XLA_ERRORS, match="INVALID_ARGUMENT: moe: .*7"):
        f(x, bad, scores).block_until_ready()
    close(f(x, good, scores), [[2.0] * 4, [1.0] * 4])


def test_gradients_are_refused(layer):
    f, x = to_jax(layer), jnp.asarray(rows(5))
    for take in (jax.grad, jax.jacfwd, lambda g: jax.jit(jax.value_and_grad(g))):
        with pytest.raises(moe.MoEError, match="the layer 'main' has no gradient"):
            take(lambda x: f(x).sum())(x)
    # Not with respect to its inputs.
    got = jax.grad(lambda s: (s * f(x)).sum())(2.0)
    close(got, in_numpy(x, parameters()).sum(), 1e-5)
    assert (jax.grad(lambda x: (x + f(jax.lax.stop_gradient(x))).sum())(x) == 1).all()


def test_a_gradient_of_their_own(layer):
    """What the documentation says: the gradient of the function in JAX around the layer."""
    p = parameters()
    f = jax.custom_vjp(to_jax(layer))
    f.defvjp(lambda x: (f(x), x), lambda x, dy: jax.vjp(lambda x: maxtext(x, p), x)[1](dy))
    x = jnp.asarray(rows(7))
    close(jax.jit(jax.grad(lambda x: (f(x) ** 2).sum()))(x),
          jax.grad(lambda x: (maxtext(x, p) ** 2).sum())(x), 1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_vmap(layer, axis):
    f, p = to_jax(layer), parameters()
    x = jnp.stack([jnp.asarray(rows(6)) * s for s in (1, 2, -1)], axis)
    close(jax.jit(jax.vmap(f, axis, axis))(x), np.stack(
        [in_numpy(each, p) for each in jnp.moveaxis(x, axis, 0)], axis))


def test_vmap_of_some_inputs(compiled):
    f = to_jax(moe.compile(TWO).layer())
    x, ids = jnp.arange(24.0).reshape(2, 3, 4), jnp.arange(6, dtype=jnp.int32).reshape(3, 2)
    a, b = jax.vmap(f, (0, None))(x, ids)
    assert (a == 2 * x).all() and (b == 2 * ids[None]).all() and b.shape == (2, 3, 2)


def test_loops_and_branches(layer):
    f, p, x = to_jax(layer), parameters(), jnp.asarray(rows(4))
    ours, theirs = jax.lax.scan(lambda x, _: (jnp.tanh(f(x)), x.sum()), x, None, 3)[0], x
    for _ in range(3):
        theirs = np.tanh(in_numpy(theirs, p))
    close(ours, theirs, 1e-5)
    close(jax.jit(lambda x: jax.lax.cond(x[0, 0] > 9, lambda x: x, f, x))(x), in_numpy(x, p))


def test_donated(layer):
    f, p = to_jax(layer), parameters()
    x = rows(33)
    program = jax.jit(lambda x, y: (f(x), y + x, f(y)), donate_argnums=(0, 1))
    a, b, c = program(jnp.asarray(x), jnp.asarray(2 * x))
    close(a, in_numpy(x, p))
    close(b, 3 * x)
    close(c, in_numpy(2 * x, p))


def test_one_export_for_any_number_of_tokens(layer):
    f, p = to_jax(layer), parameters()
    tokens, = jax.export.symbolic_shape("t")
    spec = jax.ShapeDtypeStruct((tokens, HIDDEN), jnp.float32)
    program = jax.jit(lambda x: x + f(x))
    exported = jax.export.export(program, disabled_checks=[
        jax.export.DisabledSafetyCheck.custom_call("moe_layer")])(spec)
    for count in (1, 8, 33):
        x = jnp.asarray(rows(count))
        close(exported.call(x), x + in_numpy(x, p))
    # JAX does not know that it is for this process alone, and refuses without that.
    with pytest.raises(XLA_ERRORS, match="custom calls whose targets have no compat.*"):
        jax.export.export(program)(spec)


def test_an_export_without_its_layer():
    """As in another process: an error, and no address that is used."""
    layer = moe.compile(TWO).layer()
    exported = jax.export.export(jax.jit(to_jax(layer)), disabled_checks=[
        jax.export.DisabledSafetyCheck.custom_call("moe_layer")])(
            jnp.ones((3, 4)), jnp.ones((3, 2), jnp.int32))
    call = lambda: jax.block_until_ready(  # noqa: E731
        exported.call(jnp.ones((3, 4)), jnp.ones((3, 2), jnp.int32)))
    assert (call()[0] == 2).all()
    _native().bind_layer(int(layer._binding.key), 0)  # as if it was not there
    with pytest.raises(XLA_ERRORS, match="NOT_FOUND: moe: the program calls a layer that is "
                       "not in this process"):
        call()


def test_other_platforms(layer):
    x = jnp.asarray(rows(5))
    with pytest.raises(moe.MoEError, match="runs on 'cpu', and the program is for 'cuda'"):
        jax.jit(to_jax(layer)).trace(x).lower(lowering_platforms=("cuda",))


def test_the_layer_stays_while_a_program_does():
    p, x = parameters(), jnp.asarray(rows(5))
    program = jax.jit(to_jax(import_block(maxtext, p).layer())).lower(x).compile()
    jax.clear_caches()
    gc.collect()
    close(program(x), in_numpy(x, p))


def test_threads_and_updates():
    """Calls of four threads see the old weights or the new ones, and never freed ones."""
    p, q = parameters(), parameters(seed=3)
    imported = import_block(maxtext, p)
    layer, x = imported.layer(), jnp.asarray(rows(33))
    program = jax.jit(to_jax(layer))
    results = [np.asarray(in_numpy(x, each)) for each in (p, q)]
    done, wrong, calls = threading.Event(), [], []

    def run():
        while not done.is_set():
            y = np.asarray(program(x))
            calls.append(1)
            if min(np.abs(y - r).max() / np.abs(r).max() for r in results) > 1e-5:
                wrong.append(y)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for i in range(20):
        layer.update({name: np.asarray((q, p)[i % 2][name]) for name in imported.weights})
    done.set()
    for thread in threads:
        thread.join()
    assert calls and not wrong
    close(program(x), results[0])
    layer.update({name: np.asarray(q[name]) for name in imported.weights})
    close(program(x), results[1])


SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from engines.test_jax import import_block, maxtext, parameters, rows
from engines.test_jax_calls import in_numpy
from jax.sharding import NamedSharding, PartitionSpec as P
from moe.integrations.jax import to_jax

p = parameters()
f = to_jax(import_block(maxtext, p).layer())
mesh = jax.make_mesh((2,), ("d",))
x = jnp.asarray(rows(34))
expected = in_numpy(x, p)
sharded = jax.device_put(x, NamedSharding(mesh, P("d")))
for g in (jax.jit(lambda x: f(x) * 2), jax.jit(jax.shard_map(
        lambda x: f(x) * 2, mesh=mesh, in_specs=P("d"), out_specs=P("d")))):
    y = g(sharded)
    assert len(y.sharding.device_set) == 2
    assert np.abs(np.asarray(y) - 2 * expected).max() <= 4e-6 * np.abs(expected).max()
"""


def test_sharded():
    """Of two devices, with the tokens divided between them."""
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
    done = subprocess.run([sys.executable, "-c", SHARDED], text=True, capture_output=True,
                          env=os.environ | {"XLA_FLAGS": flags})
    assert done.returncode == 0, done.stderr


LAYOUT = """
#include "xla/ffi/api/c_api.h"
#include "xla_ffi.h"
#define SAME(ours, mine, theirs, field) \\
  _Static_assert(offsetof(ours, mine) == offsetof(theirs, field), #mine " of " #ours)
SAME(XlaExtension, type, XLA_FFI_Extension_Base, type);
SAME(XlaExtension, next, XLA_FFI_Extension_Base, next);
SAME(XlaVersion, major, XLA_FFI_Api_Version, major_version);
SAME(XlaVersion, minor, XLA_FFI_Api_Version, minor_version);
SAME(XlaErrorCreate, message, XLA_FFI_Error_Create_Args, message);
SAME(XlaErrorCreate, code, XLA_FFI_Error_Create_Args, errc);
SAME(XlaBuffer, type, XLA_FFI_Buffer, dtype);
SAME(XlaBuffer, data, XLA_FFI_Buffer, data);
SAME(XlaBuffer, rank, XLA_FFI_Buffer, rank);
SAME(XlaBuffer, dims, XLA_FFI_Buffer, dims);
SAME(XlaSpan, size, XLA_FFI_ByteSpan, len);
SAME(XlaScalar, value, XLA_FFI_Scalar, value);
SAME(XlaValues, size, XLA_FFI_Args, size);
SAME(XlaValues, types, XLA_FFI_Args, types);
SAME(XlaValues, values, XLA_FFI_Args, args);
SAME(XlaValues, values, XLA_FFI_Rets, rets);
SAME(XlaAttributes, size, XLA_FFI_Attrs, size);
SAME(XlaAttributes, types, XLA_FFI_Attrs, types);
SAME(XlaAttributes, names, XLA_FFI_Attrs, names);
SAME(XlaAttributes, values, XLA_FFI_Attrs, attrs);
SAME(XlaStreamGet, stream, XLA_FFI_Stream_Get_Args, stream);
SAME(XlaDeviceOrdinalGet, ordinal, XLA_FFI_DeviceOrdinal_Get_Args, device_ordinal);
SAME(XlaApi, version, XLA_FFI_Api, api_version);
SAME(XlaApi, createError, XLA_FFI_Api, XLA_FFI_Error_Create);
SAME(XlaApi, getStream, XLA_FFI_Api, XLA_FFI_Stream_Get);
SAME(XlaApi, getDeviceOrdinal, XLA_FFI_Api, XLA_FFI_DeviceOrdinal_Get);
SAME(XlaCallFrame, api, XLA_FFI_CallFrame, api);
SAME(XlaCallFrame, context, XLA_FFI_CallFrame, ctx);
SAME(XlaCallFrame, stage, XLA_FFI_CallFrame, stage);
SAME(XlaCallFrame, arguments, XLA_FFI_CallFrame, args);
SAME(XlaCallFrame, results, XLA_FFI_CallFrame, rets);
SAME(XlaCallFrame, attributes, XLA_FFI_CallFrame, attrs);
SAME(XlaMetadata, version, XLA_FFI_Metadata, api_version);
SAME(XlaMetadataExtension, metadata, XLA_FFI_Metadata_Extension, metadata);
#define EQUAL(a, b) _Static_assert((int)(a) == (int)(b), #b)
EQUAL(kXlaMajorVersion, XLA_FFI_API_MAJOR);
EQUAL(kXlaMetadata, XLA_FFI_Extension_Metadata);
EQUAL(kXlaBuffer, XLA_FFI_ArgType_BUFFER);
EQUAL(kXlaBuffer, XLA_FFI_RetType_BUFFER);
EQUAL(kXlaScalarAttribute, XLA_FFI_AttrType_SCALAR);
EQUAL(kXlaS64, XLA_FFI_DataType_S64);
"""


def test_declarations(tmp_path):
    """Those of XLA's interface are those of jaxlib's header."""
    source = tmp_path / "layout.c"
    source.write_text(LAYOUT)
    native = Path(__file__).resolve().parents[3] / "python/native"
    done = subprocess.run(["cc", "-std=c11", "-fsyntax-only", f"-I{native}",
                           f"-I{jax.ffi.include_dir()}", source], text=True, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_example():
    """The second program of the documentation, after the first."""
    page = Path(__file__).resolve().parents[3] / "docs/foreign-programs.md"
    programs = [part.split("```")[0] for part in page.read_text().split("```python\n")[1:3]]
    rng = np.random.default_rng(3)
    shapes = {"router": (64, 8), "gate": (8, 64, 96), "up": (8, 64, 96), "down": (8, 96, 64)}
    values = {"params": {name: jnp.asarray(rng.standard_normal(shape) / 8, jnp.float32)
                         for name, shape in shapes.items()},
              "x": rng.standard_normal((7, 64)).astype(np.float32)}
    for program in programs:
        exec(program, values)
    x = values["x"]
    close(values["y"], x + values["block"](x, values["params"]))
    close(values["dx"], jax.grad(lambda x: (values["block"](x, values["params"]) ** 2).sum())(x),
          1e-5)


def test_top_k_of_equal_scores(layer):
    """As jax.lax.top_k, the lower of equal experts: the same bits twice, and JAX's choice."""
    p = parameters()
    p["router"] = jnp.zeros_like(p["router"])
    f, x = to_jax(import_block(maxtext, p).layer()), jnp.asarray(rows(6))
    close(jax.jit(f)(x), in_numpy(x, p))
    assert (jax.jit(f)(x) == f(x)).all() and TOP_K < 8
