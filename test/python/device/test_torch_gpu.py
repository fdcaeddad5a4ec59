"""Compiled experts and layers on CUDA tensors of PyTorch, on the driver's double."""

from __future__ import annotations

import numpy as np
import pytest

import moe

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from moe_testing import data  # noqa: E402
from moe_testing.device import double  # noqa: E402
from moe_testing.device.cuda_driver import driver  # noqa: E402
from moe_testing.models import experts as models  # noqa: E402
from moe_testing.models.hf import MODELS, H  # noqa: E402

pytestmark = pytest.mark.usefixtures("device")


@pytest.fixture
def stream(monkeypatch):
    """PyTorch's current stream, with "cuda" as the double."""
    import moe.integrations.transformers as compiled_experts
    from moe_testing.device import torch_tensors

    double.needs_double()
    compiled_experts.register()
    stream = driver().stream(blocking=False)
    with torch.no_grad(), torch_tensors.device(monkeypatch, stream):
        yield stream


def on_device(module: torch.nn.Module) -> torch.nn.Module:
    """Move the parameters and buffers of a module to the device."""
    from moe_testing.device.torch_tensors import to_device

    for part in module.modules():
        for table in (part._parameters, part._buffers):
            for name, tensor in table.items():
                if tensor is not None:
                    made = to_device(tensor)
                    table[name] = torch.nn.Parameter(made, False) if name in part._parameters else (
                        made)
    return module


def host(tensor: torch.Tensor) -> torch.Tensor:
    from moe_testing.device.torch_tensors import to_host

    assert tensor.is_cuda
    return to_host(tensor)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("tokens", [1, 70])
def test_experts(tokens, dtype, stream, record):
    from moe_testing.device.torch_tensors import to_device

    experts = models.mixtral(dtype)
    arguments = models.route(tokens, dtype)
    expected = models.run(experts, "eager", *arguments)
    result = models.run(on_device(experts), "moe_mlir", *map(to_device, arguments))
    driver().wait(stream)
    error = models.relative(host(result), expected)
    record(f"experts {dtype}", error)
    assert error < {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}[dtype]


def test_weights_are_followed(stream):
    from moe_testing.device.torch_tensors import to_device

    experts = models.mixtral(torch.float32)
    arguments = models.route(5, torch.float32)
    device = [to_device(a) for a in arguments]
    on = on_device(models.mixtral(torch.float32))
    models.run(on, "moe_mlir", *device)
    for module in (experts, on):
        module.down_proj.mul_(-2.0)
    expected = models.run(experts, "eager", *arguments)
    result = models.run(on, "moe_mlir", *device)
    driver().wait(stream)
    assert models.relative(host(result), expected) < 2e-6


def test_capture(stream):
    """A call is captured, and its replay reads what the tensors have then."""
    from moe_testing.device.torch_tensors import capture, to_device, write

    experts = models.mixtral(torch.bfloat16)
    # Of PyTorch's own operations nothing is captured here, so it must have none to convert.
    first, second = ((rows, ids, weights.float()) for rows, ids, weights in (
        models.route(9, torch.bfloat16), models.route(9, torch.bfloat16, seed=5)))
    expected = [models.run(experts, "eager", *a) for a in (first, second)]
    tensors = [to_device(a) for a in first]
    on = on_device(experts)
    models.run(on, "moe_mlir", *tensors)  # compiles, and prepares the weights
    results = []
    graph = capture(stream, lambda: results.append(models.run(on, "moe_mlir", *tensors)))
    for arguments, result in zip((first, second), expected):
        for tensor, value in zip(tensors, arguments):
            write(tensor, value)
        graph.launch(stream)
        driver().wait(stream)
        assert models.relative(host(results[0]), result) < 1.6e-2


def test_workspace_is_of_pytorch(stream, monkeypatch):
    """The runtime allocates nothing: a call takes what it is given, on the current stream."""
    from moe.integrations import transformers as compiled_experts
    from moe_testing.device.torch_tensors import to_device

    experts = on_device(models.mixtral(torch.float32))
    device = [to_device(a) for a in models.route(40, torch.float32)]
    models.run(experts, "moe_mlir", *device)
    sizes = []
    original = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *shape, **options: sizes.append(
        (shape, options.get("dtype"), str(options.get("device")))) or original(*shape, **options))
    models.run(experts, "moe_mlir", *device)
    layer = compiled_experts.layer_of(experts)
    assert ((layer.workspace_bytes(40),), torch.uint8, "cuda:0") in sizes


def test_invalid_ids_are_an_error_of_a_later_call(stream):
    from moe_testing.device.torch_tensors import to_device

    experts = on_device(models.mixtral(torch.float32))
    rows, ids, weights = models.route(5, torch.float32)
    bad = ids.clone()
    bad[2, 1] = 99
    models.run(experts, "moe_mlir", to_device(rows), to_device(bad), to_device(weights))
    driver().wait(stream)
    arguments = [to_device(a) for a in (rows, ids, weights)]
    with pytest.raises(moe.MoEError, match="expert"):
        models.run(experts, "moe_mlir", *arguments)
    models.run(experts, "moe_mlir", *arguments)


def test_devices_that_differ(stream):
    from moe_testing.device.torch_tensors import to_device

    rows, ids, weights = models.route(5, torch.float32)
    experts = on_device(models.mixtral(torch.float32))
    with pytest.raises(moe.MoEError, match="an input is on 'cpu', expected 'cuda:0'"):
        models.run(experts, "moe_mlir", to_device(rows), ids, to_device(weights))
    with pytest.raises(moe.MoEError, match="an input is on 'cuda:0', expected 'cpu'"):
        models.run(models.mixtral(torch.float32), "moe_mlir", to_device(rows), to_device(ids),
                   to_device(weights))


@pytest.mark.parametrize("family", ["mixtral", "deepseek_v3"])
def test_whole_layer(family, stream, record):
    """A traced block, router and all, as the operation of PyTorch."""
    from moe_testing.device.torch_tensors import to_device

    made = MODELS[family]()
    compiled = moe.from_torch(made.block(made.model).eval()).module()
    x = torch.randn(1, 33, H, generator=torch.Generator().manual_seed(3))
    expected = made.run(x[0])
    on_device(compiled)
    result = compiled(to_device(x))
    driver().wait(stream)
    error = data.relative_error(host(result).numpy().reshape(33, H), np.asarray(expected))
    record(f"{family} f32", error)
    assert error < 2e-6
