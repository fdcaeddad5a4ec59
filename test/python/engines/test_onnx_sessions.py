"""Compiled layers in sessions of ONNX Runtime, against its own operators and numpy.

`./dev check onnx` runs this in an environment with both packages.
"""

from __future__ import annotations

import importlib.util
import threading
from pathlib import Path

import moe
import numpy as np
import pytest

pytestmark = [
    pytest.mark.skipif(any(importlib.util.find_spec(n) is None for n in ("onnx", "onnxruntime")),
                       reason="onnx is not installed; ./dev check onnx installs it"),
    pytest.mark.usefixtures("compiled")]

if importlib.util.find_spec("onnx") is not None and importlib.util.find_spec("onnxruntime"):
    import onnx
    import onnxruntime
    from engines.test_onnx import (E, H, K, close, draw, inputs_of, make_arrays, make_model,
                                   numpy_experts, quantize, run_theirs)
    from moe.integrations.onnx import library_path, make_layer, replace
    from onnx import TensorProto, helper, numpy_helper

TWO = """\
func.func @two(%x: tensor<?x4xTYPE> {moe.role = "input", moe.name = "x"},
               %ids: tensor<?x2xi32> {moe.role = "input", moe.name = "ids"},
               %w: tensor<4xTYPE> {moe.role = "weight", moe.name = "w"})
    -> (tensor<?x4xTYPE>, tensor<?x2xi32>) {
  %c0 = arith.constant 0 : index
  %n = tensor.dim %x, %c0 : tensor<?x4xTYPE>
  %d = tensor.empty(%n) : tensor<?x4xTYPE>
  %0 = linalg.broadcast ins(%w : tensor<4xTYPE>) outs(%d : tensor<?x4xTYPE>) dimensions = [0]
  %1 = arith.mulf %x, %0 : tensor<?x4xTYPE>
  %2 = arith.addi %ids, %ids : tensor<?x2xi32>
  return %1, %2 : tensor<?x4xTYPE>, tensor<?x2xi32>
}
func.func @other(%x: tensor<?x4xTYPE> {moe.role = "input", moe.name = "x"}) -> tensor<?x4xTYPE> {
  return %x : tensor<?x4xTYPE>
}
"""


def session(model, threads=0):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.register_custom_ops_library(library_path())
    return onnxruntime.InferenceSession(model.SerializeToString(), options,
                                        providers=["CPUExecutionProvider"])


def run_ours(model, **feeds):
    return session(model).run(None, feeds)[0]


def layers(model):
    return [node for node in model.graph.node if node.domain == "moe.mlir"]


@pytest.mark.parametrize("rank", [2, 3])
def test_replaced(rank):
    """Between other nodes, where ONNX Runtime's own operator is wrong (onnxruntime#33866)."""
    arrays = make_arrays(1, False, True)
    attributes = dict(k=K, activation_type="swiglu", swiglu_fusion=1, normalize_routing_weights=1)
    arrays["router"], arrays["two"] = draw(H, E, seed=5), np.float32([2])
    node = helper.make_node
    before = [node("Mul", ["input", "two"], ["x"]), node("MatMul", ["x", "router"], ["logits"]),
              node("Reshape", ["logits", "flat"], ["router_probs"])]
    arrays["flat"] = np.int64([-1, E])
    model = make_model("MoE", {n: a for n, a in arrays.items() if n != "flat"},
                       inputs_of(arrays), attributes, before, names=("input",))
    model.graph.initializer.append(numpy_helper.from_array(arrays["flat"], "flat"))
    model.graph.node[-1].output[0] = "experts_y"
    model.graph.node.append(node("Add", ["experts_y", "x"], ["y"]))
    given = model.SerializeToString()
    ours = replace(model)
    assert model.SerializeToString() == given
    assert [n.op_type for n in layers(ours)] == ["Layer"]
    assert not {"fc1", "fc2", "fc1_bias", "fc2_bias"} & {t.name for t in ours.graph.initializer}
    for tokens in (2, 18):
        x = draw(tokens, H, seed=1)
        shape = (tokens, H) if rank == 2 else (2, tokens // 2, H)
        y = run_ours(ours, input=x.reshape(shape))
        assert y.shape == shape
        expected = numpy_experts(2 * x, 2 * x @ arrays["router"], arrays, "swiglu", 1) + 2 * x
        close(y.reshape(tokens, H), expected)


def test_the_router_goes():
    """A product of the node's own input is part of the layer, and leaves the graph."""
    arrays = make_arrays(0, False, False) | {"router": draw(H, E, seed=5)}
    before = [helper.make_node("MatMul", ["x", "router"], ["router_probs"])]
    model = make_model("MoE", arrays, inputs_of(arrays), dict(k=K, activation_type="gelu"),
                       before, names=("x",))
    ours = replace(model, node="experts")
    assert "MatMul" not in [node.op_type for node in ours.graph.node]
    assert sorted(t.name for t in ours.graph.initializer) == [
        "experts.fc1", "experts.fc2", "experts.router", "experts.rows_shape"]
    x = draw(9, H, seed=1)
    close(run_ours(ours, x=x), run_theirs(model, x=x))


def test_quantised():
    plain = {"fc1": draw(E, 64, H), "fc2": draw(E, H, 32)}
    arrays = {}
    for name, w in plain.items():
        arrays[name], arrays[name + "_scales"], _, _ = quantize(w, 4, 16, False)
    model = make_model("QMoE", arrays, inputs_of(arrays, (
        "fc1", "fc1_scales", "", "fc2", "fc2_scales")), dict(
            k=K, activation_type="swiglu", swiglu_fusion=1, block_size=16,
            normalize_routing_weights=1))
    ours = replace(model)
    x, logits = draw(17, H, seed=1), draw(17, E, seed=2)
    close(run_ours(ours, x=x, router_probs=logits), run_theirs(model, x=x, router_probs=logits))
    # In the model, the weights keep their bits.
    assert len(ours.SerializeToString()) < len(model.SerializeToString()) + 200_000


def test_external_data(tmp_path):
    arrays = make_arrays(0, False, False)
    model = make_model("MoE", arrays, inputs_of(arrays), dict(k=K))
    onnx.save_model(model, tmp_path / "model.onnx", save_as_external_data=True, size_threshold=0,
                    location="weights.bin")
    ours = replace(tmp_path / "model.onnx")
    onnx.save_model(ours, tmp_path / "ours.onnx", save_as_external_data=True, size_threshold=64,
                    location="ours.bin")
    x, logits = draw(5, H, seed=1), draw(5, E, seed=2)
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(library_path())
    y = onnxruntime.InferenceSession(tmp_path / "ours.onnx", options).run(
        None, dict(x=x, router_probs=logits))[0]
    close(y, numpy_experts(x, logits, arrays, "relu", normalize=False))


def test_several_nodes():
    arrays = make_arrays(0, False, False)
    model = make_model("MoE", arrays, inputs_of(arrays), dict(k=K))
    second = model.graph.node.add()
    second.CopyFrom(model.graph.node[0])
    model.graph.node[0].output[0] = second.input[0] = "between"
    second.name = "second"
    x, logits = draw(5, H, seed=1), draw(5, E, seed=2)
    expected = numpy_experts(numpy_experts(x, logits, arrays, "relu", normalize=False), logits,
                             arrays, "relu", normalize=False)
    both, one = replace(model), replace(model, node="second")
    assert len(layers(both)) == 2 and len(layers(one)) == 1
    close(run_ours(both, x=x, router_probs=logits), expected)
    with pytest.raises(moe.MoEError, match="expected one node 'x' of experts"):
        replace(model, node="x")
    with pytest.raises(moe.MoEError, match="no node MoE or QMoE"):
        replace(both)


# --------------------------------------------------------------------------
# Any layer
# --------------------------------------------------------------------------


def two(dtype="f32", element=1, **changes):
    """A model of the layer `two` and a node after it."""
    module = moe.compile(TWO.replace("TYPE", dtype))
    arguments = dict(inputs=["x", "ids"], outputs=["a", "b"], name="layer", function="two")
    w = np.arange(4).astype(moe._dlpack.numpy_dtype(dtype))
    node, tensors, types = make_layer(module, {"w": w}, **(arguments | changes))
    graph = helper.make_graph(
        [node, helper.make_node("Identity", ["a"], ["y"])], "g",
        [helper.make_tensor_value_info("x", element, ["t", 4]),
         helper.make_tensor_value_info("ids", TensorProto.INT32, ["t", 2])],
        [helper.make_tensor_value_info("y", element, ["t", 4]),
         helper.make_tensor_value_info("b", TensorProto.INT32, ["t", 2])], tensors,
        value_info=types[:1])
    return helper.make_model(graph, ir_version=10, opset_imports=[
        helper.make_opsetid("", 21), helper.make_opsetid("moe.mlir", 1)])


@pytest.mark.parametrize("dtype, numpy, element", [
    ("f32", np.float32, 1), ("f16", np.float16, 10), ("f64", np.float64, 11)])
def test_types_and_outputs(dtype, numpy, element):
    ours = session(two(dtype, element))
    for tokens in (0, 1, 3):
        x = np.arange(4 * tokens, dtype=numpy).reshape(-1, 4)
        ids = np.arange(2 * tokens, dtype=np.int32).reshape(-1, 2)
        y, b = ours.run(None, dict(x=x, ids=ids))
        assert y.dtype == numpy
        np.testing.assert_array_equal(y, x * np.arange(4, dtype=numpy))
        np.testing.assert_array_equal(b, 2 * ids)


def attribute(model, name, value=None):
    """Set or remove an attribute of the layer."""
    node, = layers(model)
    for each in [a for a in node.attribute if a.name == name]:
        node.attribute.remove(each)
    if value is not None:
        node.attribute.append(helper.make_attribute(name, value))
    return model


def broken(tmp_path):
    yield "expected one of the attributes 'artifact' and 'artifact_path'", attribute(
        two(), "artifact")
    yield "expected one of the attributes", attribute(two(), "artifact_path", "layer.moe")
    yield "nothing.moe", attribute(attribute(two(), "artifact"), "artifact_path",
                                   str(tmp_path / "nothing.moe"))
    yield "expected the attribute 'function'", attribute(two(), "function")
    yield "'nothing'", attribute(two(), "function", "nothing")
    yield "artifact", attribute(two(), "artifact", b"nothing")
    model = two()
    del layers(model)[0].input[-1]
    yield "'two' has 2 inputs, 1 weights and 2 outputs, got 2 inputs and 2 outputs", model
    model = two()
    layers(model)[0].input[2] = "ids"
    yield "weight 'w': expected a constant", model
    model = two()
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones(5, np.float32), "layer.w"))
    yield "weight 'w'.*5", model


def test_what_a_session_refuses(tmp_path):
    for message, model in broken(tmp_path):
        with pytest.raises(Exception, match="moe: .*" + message):
            session(model)


def test_artifact_of_a_file(tmp_path):
    path = tmp_path / "layer.moe"
    path.write_bytes(moe.compile(TWO.replace("TYPE", "f32")).path.read_bytes())
    ours = session(attribute(attribute(two(), "artifact"), "artifact_path", str(path)))
    assert (ours.run(["b"], dict(x=np.ones((1, 4), np.float32), ids=np.ones((1, 2), np.int32)))[0]
            == 2).all()


def test_errors_of_a_call():
    ours = session(two())
    ids = np.ones((3, 2), np.int32)
    with pytest.raises(Exception, match="moe: input 'ids'.*"):
        ours.run(None, dict(x=np.ones((2, 4), np.float32), ids=ids))
    assert (ours.run(["b"], dict(x=np.ones((3, 4), np.float32), ids=ids))[0] == 2).all()


def test_arguments():
    with pytest.raises(moe.MoEError, match="expected 2 inputs, got 1"):
        two(inputs=["x"])
    with pytest.raises(moe.MoEError, match="expected 2 outputs, got 3"):
        two(outputs=["a", "b", "c"])
    with pytest.raises(moe.MoEError, match="expected a weight 'w'"):
        make_layer(moe.compile(TWO.replace("TYPE", "f32")), {"v": np.ones(4)}, ["x", "ids"],
                   ["a", "b"], name="layer", function="two")


def test_threads():
    """One session, called from several threads; several sessions of a process."""
    arrays = make_arrays(0, False, False)
    model = replace(make_model("MoE", arrays, inputs_of(arrays), dict(k=K)))
    sessions = [session(model), session(model, threads=1)]
    x, logits = draw(33, H, seed=1), draw(33, E, seed=2)
    expected = numpy_experts(x, logits, arrays, "relu", normalize=False)
    failures = []

    def run(each):
        try:
            for _ in range(20):
                close(each.run(None, dict(x=x, router_probs=logits))[0], expected)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(sessions[i % 2],)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_example(tmp_path, monkeypatch):
    """The program of the documentation."""
    page = Path(__file__).resolve().parents[3] / "docs/foreign-programs.md"
    program = next(part.split("```")[0] for part in page.read_text().split("```python\n")
                   if "library_path" in part)
    arrays = make_arrays(0, False, False) | {"router": draw(H, E, seed=5)}
    before = [helper.make_node("MatMul", ["x", "router"], ["router_probs"])]
    model = make_model("MoE", arrays, inputs_of(arrays), dict(k=K), before, names=("x",))
    monkeypatch.chdir(tmp_path)
    onnx.save(model, "model.onnx")
    values = {"x": draw(9, H, seed=1), "onnx": onnx, "onnxruntime": onnxruntime}
    exec(program, values)
    close(values["y"], run_theirs(model, x=values["x"]))
