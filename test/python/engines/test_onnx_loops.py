"""Graphs of experts that exporters write in other ways than ``test_onnx_graphs``: loops of the
TorchScript exporter, all experts on all tokens, Einsum; against ONNX Runtime.

`./dev check onnx` runs this in an environment with these packages.
"""

from __future__ import annotations

import importlib.util
import warnings

import numpy as np
import pytest

pytestmark = [
    pytest.mark.skipif(any(importlib.util.find_spec(n) is None for n in (
        "onnx", "onnxruntime", "onnxscript", "torch", "transformers")),
        reason="onnx is not installed; ./dev check onnx installs it"),
    pytest.mark.usefixtures("compiled"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning")]

if importlib.util.find_spec("onnx") is not None and importlib.util.find_spec("onnxscript"):
    import moe
    from engines.test_onnx import close, draw
    from engines.test_onnx_graphs import call, theirs
    from onnx import TensorProto, helper, numpy_helper

H, I, E, K = 32, 24, 4, 2


class Writer:
    """Writes nodes one by one; arrays are initializers, numbers are nodes Constant."""

    def __init__(self):
        self.nodes, self.initializers = [], []

    def __call__(self, op, *inputs, count=1, **attributes):
        names = [n if isinstance(n, str) else self.constant(n) for n in inputs]
        results = [f"{op}_{len(self.nodes)}_{i}" for i in range(count)]
        self.nodes.append(helper.make_node(op, names, results, **attributes))
        return results if count > 1 else results[0]

    def constant(self, value):
        array = np.asarray(value)
        array = array.astype(np.int64 if array.dtype.kind == "i" else np.float32)
        return self("Constant", value=numpy_helper.from_array(array))

    def weight(self, name, *shape):
        array = draw(*shape, seed=len(self.initializers))
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def zeros(self, shape):
        zero = numpy_helper.from_array(np.zeros(1, np.float32))
        return self("ConstantOfShape", shape, value=zero)

    def model(self, result, shape):
        self.nodes.append(helper.make_node("Identity", [result], ["y"]))
        rows = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in ("x", "y")]
        graph = helper.make_graph(self.nodes, "block", rows[:1], rows[1:], self.initializers)
        return helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 18)])


def check(write, change, dispatches, rank=2):
    """A block and what ONNX Runtime computes of it; ``dispatches`` are what is recognised."""
    w = Writer()
    shape = ["t", H] if rank == 2 else [1, "t", H]
    model = w.model(write(w, change), shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        imported = moe.from_onnx(model)
    assert imported.mlir.count("= moe.dispatch ") == dispatches
    layer = imported.layer()
    for tokens in (17, 1):
        x = draw(tokens, H, seed=tokens)
        x = x if rank == 2 else x[None]
        close(call(layer, x), theirs(model, x))
    return imported


def loop(w, change=""):
    """Mixtral's loop, whose tokens NonZero finds, as the TorchScript exporter writes it."""
    probabilities = w("Softmax", w("MatMul", "x", w.weight("router", H, E)), axis=1)
    weights, ids = w("TopK", probabilities, [K], count=2)
    weights = w("Div", weights, w("ReduceSum", weights, [-1]))
    mask = w("Transpose", w("OneHot", ids, E, [0, 1]), perm=[2, 1, 0])
    y = w.zeros(w("Shape", "x"))
    for e in range(E):
        number = 0 if change == "one twice" and e == 1 else e
        places = w("Transpose", w("NonZero", w("Gather", mask, number)), perm=[1, 0])
        choice, token = w("Split", places, [1, 1], count=2, axis=1)
        choice, token = w("Squeeze", choice, [1]), w("Squeeze", token, [1])
        rows = w("Reshape", w("Gather", w("Unsqueeze", "x", [0]), token, axis=1), [-1, H])
        h = w("Relu", w("MatMul", rows, w.weight(f"w1_{e}", H, I)))
        h = w("MatMul", h, w.weight(f"w2_{e}", I, H))
        at = w("Concat", w("Unsqueeze", token, [-1]), w("Unsqueeze", choice, [-1]), axis=-1)
        h = w("Mul", h, w("Unsqueeze", w("GatherND", weights, at), [1]))
        index = w("Expand", w("Unsqueeze", token, [1]), w("Shape", h))
        y = w("ScatterElements", y, index, h, axis=0, reduction="add")
    return y


def switch(w, change=""):
    """Switch Transformers: one choice, at most so many tokens for an expert, by CumSum."""
    scores = w("Softmax", w("MatMul", "x", w.weight("router", H, E)), axis=-1)
    marks = w("OneHot", w("ArgMax", scores, axis=-1, keepdims=0), E, [0, 1])
    place = w("CumSum", marks, -2)
    kept = place if change == "counts" else w("Cast", w("LessOrEqual", place, 3),
                                              to=TensorProto.INT64)
    kept = w("Cast", w("Mul", marks, kept), to=TensorProto.BOOL)
    y = w.zeros(w("Shape", "x"))
    for e in range(E):
        at = w("Transpose", w("NonZero", w("Gather", kept, e, axis=2)), perm=[1, 0])
        h = w("Relu", w("MatMul", w("GatherND", "x", at), w.weight(f"wi_{e}", H, I)))
        y = w("ScatterND", y, at, w("MatMul", h, w.weight(f"wo_{e}", I, H)))
    return w("Mul", y, w("ReduceMax", scores, [-1]))


def every(w, change=""):
    """gpt-oss: all experts on all tokens, weighted by a matrix; biases and limits."""
    rows = w("Reshape", "x", [-1, H])
    logits = w("Gemm", rows, w.weight("router", E, H), w.weight("router_bias", 1, E), transB=1)
    best, ids = w("TopK", logits, [K], count=2)
    scores = w("ScatterElements", w.zeros(w("Shape", logits)), ids, w("Softmax", best), axis=1)
    all_rows = w("Reshape", w("Tile", rows, [E, 1]), [E, -1, H])
    h = w("Add", w("MatMul", all_rows, w.weight("w1", E, H, 2 * I)), w.weight("b1", E, 1, 2 * I))
    gate, up = (w("Slice", h, [i], [2**63 - 1], [2], [2]) for i in (0, 1))
    gate, up = w("Clip", gate, "", 0.7), w("Clip", up, -0.7, 0.7)
    h = w("Mul", w("Add", up, 1.0), w("Mul", gate, w("Sigmoid", w("Mul", gate, 1.702))))
    y = w("MatMul", h, w.weight("w2", E, I, H))
    y = w("Add", y, w("Unsqueeze", w.weight("b2", E, H), [1]))
    scores = w("Unsqueeze", w("Transpose", scores, perm=[1, 0]), [-1])
    y = w("ReduceSum", w("Mul", y, scores), [0], keepdims=0)
    return w("Reshape", w("Tanh", y) if change == "of the sum" else y, w("Shape", "x"))


def einsum(w, change=""):
    """tf2onnx: weights that are gathered, GELU by Erf, and a shared expert with a gate."""

    def gelu(x):
        erf = w("Erf", w("Mul", x, 0.5**0.5))
        return w("Mul", w("Mul", x, w("Add", erf, 1.0)), 0.5)

    scores = w("Sigmoid", w("MatMul", "x", w.weight("router", H, E)))
    best, ids = w("TopK", scores, [K], count=2)
    best = w("Div", best, w("Add", w("ReduceSum", best, [-1]), 1e-9))
    other = w("Mod", w("Add", ids, 1), E) if change == "the next" else ids
    w1, w2 = w("Gather", w.weight("w1", E, H, I), ids), w("Gather", w.weight("w2", E, I, H), other)
    h = gelu(w("Einsum", "x", w1, equation="td,tkdf->tkf"))
    y = w("Einsum", h, w2, best, equation="tkf,tkfd,tk->td")
    shared = w("MatMul", gelu(w("MatMul", "x", w.weight("s1", H, I))), w.weight("s2", I, H))
    gate = w("Sigmoid", w("MatMul", "x", w.weight("gate", H, 1)))
    return w("Add", y, w("Mul", shared, gate))


def masked(w, change=""):
    """tf2onnx: rows that a mask makes 0 for the other experts, by Einsum; ids of 32 bits."""
    scores = w("Softmax", w("MatMul", "x", w.weight("router", H, E)), axis=-1)
    best, ids = w("TopK", scores, [K], count=2)
    depth = w("Constant", value=numpy_helper.from_array(np.array(E, np.int32)))
    hot = w("OneHot", w("Cast", ids, to=TensorProto.INT32), depth, [0.0, 1.0])
    mask = w("ReduceSum", hot, [1], keepdims=0)
    if change == "all but these":
        mask = w("Sub", 1.0, mask)
    h = w("Einsum", mask, "x", equation="te,td->etd")
    h = w("Einsum", h, w.weight("w1", E, H, I), equation="etd,edf->etf")
    if change != "sum":
        h = w("Add", h, w.weight("b1", E, 1, I))
    y = w("Einsum", w("Relu", h), w.weight("w2", E, I, H), equation="etf,efd->etd")
    if change in ("sum", "sum with biases"):  # which the other experts add, too
        return w("ReduceSum", y, [0], keepdims=0)
    return w("Einsum", w("Einsum", hot, best, equation="tke,tk->te"), y, equation="te,etd->td")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("write, change, dispatches, rank", [
    (masked, "", 1, 2), (masked, "sum", 1, 2), (masked, "sum with biases", 0, 2),
    (masked, "all but these", 0, 2),
    (loop, "", 1, 2), (loop, "one twice", 0, 2), (switch, "", 1, 3), (switch, "counts", 0, 3),
    (every, "", 1, 3), (every, "of the sum", 1, 3), (einsum, "", 1, 2), (einsum, "the next", 0, 2),
], ids=lambda v: v.__name__ if callable(v) else str(v))
def test_forms_and_near_misses(write, change, dispatches, rank):
    check(write, change, dispatches, rank)


def numbers(w, change=""):
    """Numbers of the model, and parts of shapes, beside tensors."""
    tokens = w("Gather", w("Shape", "x"), 0)
    ids = w("Cast", w("Floor", w("Mul", "x", 8.0)), to=TensorProto.INT64)
    low = w("Min", w("Max", w("Mod", ids, 5), 1), w("Div", w("Add", tokens, 9), 4))
    y = w("Sub", 1.0, w("Div", w("Clip", "x", -0.5, 0.5), 3.0))
    y = w("Where", w("Less", ids, tokens), y, w("Pow", "x", 2.0))
    y = w("LeakyRelu", w("Sub", y, w("Cast", low, to=TensorProto.FLOAT)), alpha=0.3)
    return w("Add", y, w("ReduceL2", "x", [-1]))


def test_numbers_beside_tensors():
    check(numbers, "", 0)


def functions(w, change=""):
    """Activations and reductions that no other test has."""
    y = w("Mul", "x", 3.0)
    parts = [w("Celu", y, alpha=1.5), w("Elu", y, alpha=0.7), w("Selu", y), w("HardSigmoid", y),
             w("HardSigmoid", y, alpha=0.4, beta=0.1), w("HardSwish", y), w("Mish", y),
             w("Softsign", y), w("ThresholdedRelu", y, alpha=0.3), w("Sin", y), w("Cos", y),
             w("Sign", y), w("Round", y)]
    parts += [w(name, w("Abs", y), [-1]) for name in (
        "ReduceL1", "ReduceLogSum", "ReduceLogSumExp")]
    for part in parts[1:]:
        parts[0] = w("Add", w("Mul", parts[0], 0.7), part)
    return parts[0]


def test_activations_and_reductions():
    assert check(functions, "", 0).reason is None


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("opset", [12, 13])
def test_softmax(op, opset):
    """Of all dimensions from the axis on, before opset 13; the axis is another without one."""
    w = Writer()
    y = w("Mul", w("Add", w(op, "x"), w(op, "x", axis=1)), 16.0)
    model = w.model(y, [1, "t", H])
    model.opset_import[0].version = opset
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer = moe.from_onnx(model).layer()
    x = draw(9, H, seed=1)[None]
    close(call(layer, x), theirs(model, x))


@pytest.mark.parametrize("op", ["ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp"])
def test_reduction_of_nothing(op):
    """Without axes it is of each element by itself."""
    w = Writer()
    model = w.model(w(op, "x", noop_with_empty_axes=1), ["t", H])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer = moe.from_onnx(model).layer()
    x = draw(9, H, seed=1)
    close(call(layer, x), theirs(model, x))


def test_last_row_of_places():
    """An index below 0 of the places of a mask."""
    import torch
    from moe.integrations._onnx import places
    from moe.integrations._onnx.values import extents

    rows = places.non_zero({}, torch.tensor([[True, False, True], [False, True, True]]))
    last = places.gather({}, rows, extents([-1]))
    assert last.tolist() == [[0, 2, 1, 2]]
