"""Graphs of ONNX models with experts, as exporters write them, against ONNX Runtime; GroupedMatMul
against its definition in numpy.

`./dev check onnx` runs this in an environment with these packages.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import warnings

import moe
import numpy as np
import pytest

pytestmark = [
    pytest.mark.skipif(any(importlib.util.find_spec(n) is None for n in (
        "onnx", "onnxruntime", "onnxscript", "torch", "transformers")),
        reason="onnx is not installed; ./dev check onnx installs it"),
    pytest.mark.usefixtures("compiled"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning")]

if importlib.util.find_spec("onnx") is not None and importlib.util.find_spec("onnxscript"):
    import onnx
    import onnxruntime
    from engines.test_onnx import E, H, I, close, draw
    from engines.test_onnx_sessions import run_ours
    from moe.integrations.onnx import replace
    from onnx import TensorProto, helper, numpy_helper

torch = importlib.import_module("torch") if importlib.util.find_spec("torch") else None
silu = torch.nn.functional.silu if torch else None
K = 2


class Experts(torch.nn.Module if torch else object):
    """A router and experts, which ``combine`` computes of rows, weights and ids."""

    def __init__(self, combine):
        super().__init__()
        draw = torch.Generator().manual_seed(7)

        def weight(*shape):
            return torch.nn.Parameter(torch.randn(shape, generator=draw) / shape[-1] ** 0.5)

        self.router, self.w1, self.w3 = weight(E, H), weight(E, I, H), weight(E, I, H)
        self.w2, self.combine = weight(E, H, I), combine

    def forward(self, x):
        probabilities = torch.softmax(torch.nn.functional.linear(x, self.router), -1)
        weights, ids = torch.topk(probabilities, K, dim=-1)
        return self.combine(self, x, weights / weights.sum(-1, keepdim=True), ids)


def gathered(m, x, w, ids):
    h = silu(torch.einsum("ti,taoi->tao", x, m.w1[ids])) * torch.einsum(
        "ti,taoi->tao", x, m.w3[ids])
    return torch.einsum("tai,ta->ti", torch.einsum("tao,taio->tai", h, m.w2[ids]), w)


def every(m, x, w, ids):
    """Every expert for every token, weighted by a matrix, as OpenVINO's exporter has it."""
    matrix = torch.zeros(x.shape[0], E).scatter(1, ids, w)
    h = silu(x @ m.w1.transpose(1, 2)) * (x @ m.w3.transpose(1, 2))
    return ((h @ m.w2.transpose(1, 2)) * matrix.T.unsqueeze(-1)).sum(0)


def looped(m, x, w, ids):
    """A loop over the experts, whose tokens NonZero finds."""
    y = torch.zeros_like(x)
    mask = torch.nn.functional.one_hot(ids, E).permute(2, 1, 0)
    for e in range(E):
        choice, token = torch.where(mask[e])
        h = silu(x[token] @ m.w1[e].T) * (x[token] @ m.w3[e].T)
        y = y.index_add(0, token, (h @ m.w2[e].T) * w[token, choice, None])
    return y


def transformers_block(family, experts="batched_mm"):
    torch.manual_seed(0)
    if family == "mixtral":
        from transformers import MixtralConfig as Config
        from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock as Block
        sizes = dict(intermediate_size=I, num_local_experts=E)
    else:
        from transformers import Qwen3MoeConfig as Config
        from transformers.models.qwen3_moe.modeling_qwen3_moe import (
            Qwen3MoeSparseMoeBlock as Block)
        sizes = dict(moe_intermediate_size=I, num_experts=E, norm_topk_prob=True)
    config = Config(hidden_size=H, num_experts_per_tok=K, **sizes)
    config._experts_implementation = experts
    block = Block(config).eval()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.2)

    class First(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.block = block

        def forward(self, x):
            y = self.block(x)
            return y[0] if isinstance(y, tuple) else y

    return First()


def export(module, rank=2, table=None):
    """What torch.onnx.export makes of a module, for any number of tokens."""
    tokens = torch.export.Dim("t", min=2, max=4096)
    x = torch.zeros((7, H) if rank == 2 else (1, 7, H))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(module.eval(), (x,), dynamo=True, verbose=False,
                                    dynamic_shapes=({rank - 2: tokens},), opset_version=20,
                                    custom_translation_table=table)
    return program.model_proto


def theirs(model, x):
    session = onnxruntime.InferenceSession(model.SerializeToString(),
                                           providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def call(layer, x):
    """Layers take rows; a block that runs in PyTorch takes what it was written for."""
    if hasattr(layer, "signature"):
        return np.asarray(layer(x.reshape(-1, H))).reshape(x.shape)
    return layer(torch.from_numpy(x)).detach().numpy()


def compare(model, rank=2):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*has nothing that is known as experts")
        imported = moe.from_onnx(model)
    assert imported.mlir.count("= moe.dispatch ") == 1
    layer = imported.layer()
    for tokens in (2, 33):
        x = draw(tokens, H, seed=tokens)
        x = x if rank == 2 else x[None]
        close(call(layer, x), theirs(model, x))
    return imported


@pytest.fixture(scope="module")
def mixtral():
    return export(transformers_block("mixtral"), rank=3)


@pytest.mark.parametrize("family", ["mixtral", "qwen3"])
def test_blocks_of_transformers(family, mixtral):
    """Exported by torch: Gemm, Softmax, TopK, GatherND of the weights, MatMul, ReduceSum."""
    model = mixtral if family == "mixtral" else export(transformers_block(family), rank=3)
    assert {"GatherND", "TopK", "MatMul"} <= {node.op_type for node in model.graph.node}
    mlir = compare(model, rank=3).mlir
    assert mlir.count("moe.gate ") == mlir.count("moe.combine ") == mlir.count("moe.expert ") == 1


@pytest.mark.parametrize("combine", [gathered, every, looped], ids=lambda f: f.__name__)
def test_exported(combine):
    compare(export(Experts(combine)))


@pytest.fixture(scope="module")
def written_out():
    """What transformers' own exporter makes of grouped products: a range of rows for each group."""
    from transformers.exporters.exporter_onnx import _ONNX_TRANSLATION_TABLE

    return export(transformers_block("mixtral", "grouped_mm"), 3, dict(_ONNX_TRANSLATION_TABLE))


def test_grouped_products_that_are_written_out(written_out):
    assert {"Range", "Split", "Less"} <= {node.op_type for node in written_out.graph.node}
    mlir = compare(written_out, rank=3).mlir
    assert mlir.count("moe.gate ") == mlir.count("moe.combine ") == mlir.count("moe.expert ") == 1


def test_a_part_of_a_graph(mixtral):
    """What is between two values of a model; others need not be supported."""
    model = onnx.ModelProto()
    model.CopyFrom(mixtral)
    graph = model.graph
    first, last = graph.input[0].name, graph.output[0].name
    for node in graph.node:
        node.input[:] = ["rows" if name == first else name for name in node.input]
    graph.node.insert(0, helper.make_node("LpNormalization", [first], ["rows"], axis=-1))
    graph.value_info.append(helper.make_tensor_value_info("rows", TensorProto.FLOAT, [1, "t", H]))
    graph.node.append(helper.make_node("Mish", [last], ["result"]))
    imported = moe.from_onnx(model, inputs=["rows"], outputs=[last])
    assert imported.mlir.count("= moe.dispatch ") == 1
    x = draw(9, H, seed=1)[None]
    close(call(imported.layer(), x), theirs(mixtral, x))
    with pytest.raises(moe.MoEError, match="LpNormalization of 'ai.onnx' is not supported"):
        moe.from_onnx(model, inputs=[first], outputs=[last])


def test_argmax():
    """One choice by ArgMax, of equal ones the first or the last; weights by Gather."""
    draws = np.random.default_rng(3)
    weights = {"router": (H, E), "w1": (E, H, I), "w2": (E, I, H), "b1": (E, I)}
    initializers = [numpy_helper.from_array(
        (draws.standard_normal(shape) / shape[-2] ** 0.5).astype(np.float32), name)
        for name, shape in weights.items()]
    initializers.append(numpy_helper.from_array(np.asarray([1], np.int64), "axis"))
    node = helper.make_node
    for last in (0, 1):
        nodes = [
            node("MatMul", ["x", "router"], ["logits"]),
            node("Softmax", ["logits"], ["scores"], axis=1),
            node("ArgMax", ["scores"], ["ids"], axis=1, keepdims=1, select_last_index=last),
            node("GatherElements", ["scores", "ids"], ["gate"], axis=1),
            node("Squeeze", ["ids", "axis"], ["id"]),
            *(node("Gather", [name, "id"], ["own_" + name], axis=0) for name in ("w1", "w2", "b1")),
            node("Unsqueeze", ["x", "axis"], ["row"]), node("MatMul", ["row", "own_w1"], ["h0"]),
            node("Squeeze", ["h0", "axis"], ["h1"]), node("Add", ["h1", "own_b1"], ["h2"]),
            node("Relu", ["h2"], ["h3"]), node("Unsqueeze", ["h3", "axis"], ["h4"]),
            node("MatMul", ["h4", "own_w2"], ["y0"]), node("Squeeze", ["y0", "axis"], ["y1"]),
            node("Mul", ["y1", "gate"], ["y"])]
        rows = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["t", H]) for n in ("x", "y")]
        model = helper.make_model(
            helper.make_graph(nodes, "switch", rows[:1], rows[1:], initializers),
            opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        layer, x = quiet_layer(model), draw(33, H, seed=1)
        close(call(layer, x), theirs(model, x))


# -- near misses: the same operators, and no experts ------------------------------


def nodes_of(graph, op_type):
    return [node for node in graph.node if node.op_type == op_type]


def constant(graph, name, value):
    graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.int64), name))


def other_ids(graph):
    """The second matrix is that of the next expert."""
    second = nodes_of(graph, "GatherND")[1]
    constant(graph, "one", 1)
    constant(graph, "experts", E)
    at = list(graph.node).index(second)
    graph.node.insert(at, helper.make_node("Mod", ["next", "experts"], ["wrapped"]))
    graph.node.insert(at, helper.make_node("Add", [second.input[1], "one"], ["next"]))
    nodes_of(graph, "GatherND")[1].input[1] = "wrapped"


def reversed_weights(graph):
    """The weights of the choices in the other order."""
    divide = nodes_of(graph, "Div")[0]
    for name, value in (("from", -1), ("to", -(1 << 62)), ("axis", 1), ("step", -1)):
        constant(graph, name, [value])
    graph.node.insert(list(graph.node).index(divide), helper.make_node(
        "Slice", [divide.input[0], "from", "to", "axis", "step"], ["reversed"]))
    nodes_of(graph, "Div")[0].input[0] = "reversed"


def set_attribute(node, name, value):
    for each in node.attribute:
        if each.name == name:
            each.i = value


def smallest(graph):
    """The experts that a token likes least."""
    set_attribute(nodes_of(graph, "TopK")[0], "largest", 0)


def along_tokens(graph):
    """Probabilities of tokens, not of experts."""
    set_attribute(nodes_of(graph, "Softmax")[0], "axis", 0)


def changed(model, change):
    """A copy of a model whose graph is changed."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    change(copy.graph)
    return copy


def quiet_layer(model):
    """The layer of a model, whatever it warns of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return moe.from_onnx(model).layer()


@pytest.mark.parametrize("change", [other_ids, reversed_weights, smallest, along_tokens],
                         ids=lambda f: f.__name__)
def test_near_misses(change, mixtral):
    """They give what ONNX Runtime computes, compiled or, with a warning, in PyTorch."""
    model = changed(mixtral, change)
    layer = quiet_layer(model)
    x = draw(33, H, seed=1)[None]
    close(call(layer, x), theirs(model, x))


def change_constant(graph, name, change):
    for tensor in graph.initializer:
        if tensor.name == name:
            array = change(numpy_helper.to_array(tensor).copy())
            tensor.CopyFrom(numpy_helper.from_array(array, name))


def in_other_order(graph):
    """The results of the groups in another order than the rows."""
    concat = nodes_of(graph, "Concat")[0]
    concat.input[0], concat.input[1] = concat.input[1], concat.input[0]


def weights_of_another(graph):
    """A group has the weights of the next one."""
    first, second = nodes_of(graph, "MatMul")[:2]
    second.input[1] = first.input[1]


def edges_beside(graph):
    """A bin ends below its integer."""
    edges = nodes_of(graph, "Less")[-1].input[1]

    def change(array):
        array[1] = 1.5
        return array

    change_constant(graph, edges, change)


def two_of_three(graph):
    """Rows of other tokens: the quotient by 3, of two choices each."""
    divisor = nodes_of(graph, "Mod")[0].input[1]
    change_constant(graph, divisor, lambda array: array + 1)


@pytest.mark.parametrize("change", [in_other_order, weights_of_another, edges_beside,
                                    two_of_three], ids=lambda f: f.__name__)
def test_what_is_not_written_out(change, written_out):
    """Raised rightly, in PyTorch, or an error that names what is not supported."""
    model = changed(written_out, change)
    try:
        layer = quiet_layer(model)
    except moe.MoEError as error:
        assert re.search("is not supported|has no translation", str(error))
        return
    x = draw(33, H, seed=1)[None]
    close(call(layer, x), theirs(model, x))


def loop_with_others_weights(graph):
    """An expert of the loop has the weights of another in its second product."""
    products = nodes_of(graph, "MatMul")
    products[5].input[1] = products[2].input[1]


def loop_over_choices(graph):
    """Tokens and choices change places."""
    concat = nodes_of(graph, "NonZero")[0]
    for node in graph.node:
        if node.op_type == "Transpose" and node.input[0] == concat.output[0]:
            places = node.output[0]
    slices = [node for node in nodes_of(graph, "Slice") if node.input[0] == places]
    slices[0].input[1], slices[1].input[1] = slices[1].input[1], slices[0].input[1]
    slices[0].input[2], slices[1].input[2] = slices[1].input[2], slices[0].input[2]


@pytest.mark.parametrize("change", [loop_with_others_weights, loop_over_choices],
                         ids=lambda f: f.__name__)
def test_near_misses_of_loops(change):
    model = export(Experts(looped))
    change(model.graph)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer = moe.from_onnx(model).layer()
    x = draw(33, H, seed=1)
    try:
        expected = theirs(model, x)
    except Exception:  # noqa: BLE001 - places out of range
        return
    close(call(layer, x), expected)


# -- GroupedMatMul ------------------------------------------------------------------


def grouped(bias=True, dtype=np.float32, op="GroupedMatMul"):
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    arrays = {"w": draw(E, H, I, dtype=dtype)} | ({"b": draw(E, I, dtype=dtype)} if bias else {})
    node = helper.make_node(op, ["x", "w", "ids", *(["b"] if bias else [])], ["y"], name="product")
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("x", element, ["t", H]),
                      helper.make_tensor_value_info("ids", TensorProto.INT64, ["t", 3])],
        [helper.make_tensor_value_info("y", element, ["t", 3, I])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()])
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)])
    return model, arrays


@pytest.mark.parametrize("bias, dtype", [(False, np.float32), (True, np.float32),
                                         (True, np.float16)])
def test_grouped_matmul(bias, dtype):
    """Ids in [-G, G), twice the same in a row, groups without rows."""
    model, arrays = grouped(bias, dtype)
    layer = moe.from_onnx(model).layer()
    for tokens in (0, 1, 33):
        x = draw(tokens, H, seed=1, dtype=dtype)
        ids = np.random.default_rng(tokens).integers(-E, E - 2, (tokens, 3))
        ids[:, 2] = ids[:, 1]
        y = layer(x, ids)
        assert y.shape == (tokens, 3, I) and y.dtype == dtype
        w = arrays["w"].astype(np.float64)[ids]
        expected = np.einsum("tk,tjkn->tjn", x.astype(np.float64), w)
        if tokens:
            close(y, expected + (arrays["b"][ids] if bias else 0),
                  2e-6 if dtype == np.float32 else 2.0**-10)


def test_grouped_matmul_in_a_session():
    model, arrays = grouped()
    x, ids = draw(5, H, seed=1), np.random.default_rng(0).integers(-E, E, (5, 3))
    expected = np.einsum("tk,tjkn->tjn", x.astype(np.float64), arrays["w"][ids]) + arrays["b"][ids]
    close(run_ours(replace(model), x=x, ids=ids), expected)


def test_ids_out_of_range():
    """No group has them: their rows are 0."""
    model, _ = grouped()
    y = moe.from_onnx(model).layer()(draw(1, H), np.array([[0, E, -E - 1]]))
    assert np.abs(y[0, 0]).max() > 0 and not y[0, 1:].any()


def test_block_of_grouped_matmuls():
    """Products, an activation and the sum over choices: one dispatch."""
    arrays = {"router": draw(H, E), "w1": draw(E, H, I), "w2": draw(E, I, H)}
    node = helper.make_node
    nodes = [node("MatMul", ["x", "router"], ["logits"]), node("Softmax", ["logits"], ["p"]),
             node("TopK", ["p", "k"], ["w", "ids"]),
             node("GroupedMatMul", ["x", "w1", "ids"], ["h"], name="first"),
             node("Relu", ["h"], ["a"]), node("Reshape", ["a", "rows"], ["r"]),
             node("Reshape", ["ids", "column"], ["one"]),
             node("GroupedMatMul", ["r", "w2", "one"], ["d"], name="second"),
             node("Reshape", ["d", "choices"], ["e"]), node("Unsqueeze", ["w", "last"], ["v"]),
             node("Mul", ["e", "v"], ["m"]), node("ReduceSum", ["m", "middle"], ["y"], keepdims=0)]
    integers = {"k": [K], "rows": [-1, I], "column": [-1, 1], "choices": [-1, K, H], "last": [-1],
                "middle": [1]}
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["t", H])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["t", H])],
        [numpy_helper.from_array(a, n) for n, a in arrays.items()]
        + [numpy_helper.from_array(np.int64(v), n) for n, v in integers.items()])
    imported = moe.from_onnx(helper.make_model(graph), inputs=["x"], outputs=["y"])
    assert imported.mlir.count("= moe.dispatch ") == 1
    x = draw(17, H, seed=1)
    p = np.exp(x.astype(np.float64) @ arrays["router"])
    p /= p.sum(-1, keepdims=True)
    ids = np.argsort(-p, -1, kind="stable")[:, :K]
    h = np.maximum(np.einsum("tk,tjkn->tjn", x.astype(np.float64), arrays["w1"][ids]), 0)
    close(imported.layer()(x), np.einsum("tjn,tjnh,tj->th", h, arrays["w2"][ids],
                                         np.take_along_axis(p, ids, -1)))


# -- errors -------------------------------------------------------------------------


def test_errors(mixtral):
    model = onnx.ModelProto()
    model.CopyFrom(mixtral)
    for message, names in (("the model has no value 'z'", dict(inputs=["z"], outputs=["z"])),
                           ("expected one input and one output", dict(inputs=["a", "b"])),
                           ("expected a node, or inputs and outputs", dict(node="n", inputs=["x"])),
                           ("expected one node 'n' of experts|has no node", dict(node="n"))):
        with pytest.raises(moe.MoEError, match=message):
            moe.from_onnx(model, **names)
    model.graph.input[0].type.tensor_type.shape.dim[2].ClearField("dim_value")
    with pytest.raises(moe.MoEError, match="to be rows of tokens"):
        moe.from_onnx(model)
    for change, message in ((lambda m: m.graph.initializer.pop(0), "expected weights 'w' to be an"),
                            (lambda m: m.graph.input.pop(1), "expected group_indices 'ids'")):
        model, _ = grouped(False)
        change(model)
        with pytest.raises(moe.MoEError, match="node 'product': " + message):
            moe.from_onnx(model)


def test_external_data_that_is_gone(mixtral, tmp_path):
    """Of a node and of a graph."""
    for model, message in ((grouped(False)[0], "node 'product': cannot read 'w'"),
                           (mixtral, "cannot read '")):
        path, copy = tmp_path / "model.onnx", onnx.ModelProto()
        copy.CopyFrom(model)
        onnx.save_model(copy, path, save_as_external_data=True, size_threshold=0,
                        location="weights.bin")
        (tmp_path / "weights.bin").unlink()
        with pytest.raises(moe.MoEError, match=message):
            moe.from_onnx(path)
