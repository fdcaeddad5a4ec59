"""Gradients of experts that are added to ``grad`` or to ``main_grad``, in f32 where weights are
narrower, against PyTorch's in float64 and against autograd's own sums."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import moe  # noqa: E402
import moe.integrations.torch as mt  # noqa: E402
import moe.integrations.transformers as ce  # noqa: E402
from moe.integrations._transformers.experts import differentiable  # noqa: E402
from moe_testing.models.experts import T, expect, make, relative, route, run  # noqa: E402
from moe_testing.models.hf import MODELS  # noqa: E402

pytestmark = pytest.mark.usefixtures("registered")

F32 = 3e-6
CLASSES = [("mixtral.modeling_mixtral", "MixtralExperts"),
           ("gpt_oss.modeling_gpt_oss", "GptOssExperts")]


@pytest.fixture
def registered(compiled):
    yield
    ce.register()


def experts_of(module, name, dtype=torch.float32):
    with torch.no_grad():
        return make(f"transformers.models.{module}", name, dtype).requires_grad_()


def batches(dtype=torch.float32, count=3):
    for seed in range(count):
        x, ids, weights = route(T + seed, dtype, seed=10 + seed)
        ids[ids == 2] = 1  # an expert without tokens
        yield x.requires_grad_(), ids, weights.requires_grad_()


def backward(experts, arguments, implementation):
    y = run(experts, implementation, *arguments)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(7))
    y.backward(dy.to(y.dtype))


def in_f64(experts, dtype=torch.float32):
    """The sums of the gradients of the batches, in float64."""
    exact = copy.deepcopy(experts).double()
    for x, ids, weights in batches(dtype):
        backward(exact, (x.double(), ids, weights.double()), "eager")
    return {n: p.grad for n, p in exact.named_parameters()}


@pytest.mark.parametrize("module, name", CLASSES)
def test_grad(module, name, record):
    """The sums are in `grad`, whose memory stays, and gradients of inputs as ever."""
    experts = experts_of(module, name)
    expected = in_f64(experts)
    plain = copy.deepcopy(experts)
    ce.register(accumulate_into="grad")
    places, given = set(), []
    for arguments in batches():
        backward(experts, arguments, ce.NAME)
        places.add(tuple(p.grad.data_ptr() for p in experts.parameters()))
        given.append([arguments[0].grad, arguments[2].grad])
    assert len(places) == 1
    ce.register()
    for arguments, found in zip(batches(), given):
        backward(plain, arguments, ce.NAME)
        assert torch.equal(arguments[0].grad, found[0])
        assert torch.equal(arguments[2].grad, found[1])
    for (n, p), other in zip(experts.named_parameters(), plain.parameters()):
        error = relative(p.grad, expected[n])
        record(f"{name} {n} grad", error)
        assert error <= F32 and relative(p.grad, other.grad) <= F32, n
        assert not p.grad[2].any(), n
    # The next step begins with none, or with zeros.
    for none in (True, False):
        again = {n: p.grad.clone() for n, p in experts.named_parameters()}
        torch.optim.SGD(experts.parameters()).zero_grad(set_to_none=none)
        ce.register(accumulate_into="grad")
        for arguments in batches():
            backward(experts, arguments, ce.NAME)
        assert all(torch.equal(p.grad, again[n]) for n, p in experts.named_parameters())


@pytest.mark.parametrize("module, name", CLASSES)
def test_main_grad(module, name, record):
    """f32 sums of gradients of weights in bf16: nothing of a gradient is rounded to bf16. What
    is left are roundings of the rows between the products."""
    experts = experts_of(module, name, torch.bfloat16)
    expected = in_f64(experts, torch.bfloat16)
    plain = copy.deepcopy(experts)
    for parameter in experts.parameters():
        parameter.main_grad = torch.zeros_like(parameter, dtype=torch.float32)
    ce.register(accumulate_into="main_grad")
    for arguments in batches(torch.bfloat16):
        backward(experts, arguments, ce.NAME)
        assert arguments[0].grad.dtype == torch.bfloat16
        backward(plain, [a.detach().requires_grad_(a.is_floating_point()) for a in arguments],
                 ce.NAME)
    for (n, p), other in zip(experts.named_parameters(), plain.parameters()):
        assert p.grad is None and other.grad.dtype == torch.bfloat16
        # Each gradient and each sum of autograd is rounded.
        assert relative(other.grad, p.main_grad) <= 5 * 2.0**-9, n
        if name == "MixtralExperts":  # others have limits, which the roundings of rows cross
            error = relative(p.main_grad, expected[n])
            record(f"{name} {n} main_grad", error)
            assert error <= 2e-2 and error < relative(other.grad, expected[n]) + 1e-3, n
        assert not torch.equal(p.main_grad.bfloat16().float(), p.main_grad)


def test_one_gradient_in_f32():
    """The gradient in f32, rounded, is the gradient in bf16."""
    experts = experts_of(*CLASSES[0], torch.bfloat16)
    arguments = next(batches(torch.bfloat16))
    backward(experts, arguments, ce.NAME)
    plain = {n: p.grad for n, p in experts.named_parameters()}
    for parameter in experts.parameters():
        parameter.grad, parameter.main_grad = None, torch.zeros(parameter.shape)
    ce.register(accumulate_into="main_grad")
    backward(experts, arguments, ce.NAME)
    for n, p in experts.named_parameters():
        assert torch.equal(p.main_grad.bfloat16(), plain[n]), n


def test_a_model(record):
    """Micro-batches of a model, whose other parameters autograd adds up."""
    tokens = torch.randint(1, 64, (4, 19), generator=torch.Generator().manual_seed(3))
    model = MODELS["qwen2_moe"]().model.train()
    exact = copy.deepcopy(model).double()
    model.set_experts_implementation(ce.NAME)
    ce.register(accumulate_into="grad")
    for batch in tokens.chunk(2):
        for each in (model, exact):
            each(batch, labels=batch, use_cache=False).loss.backward()
    expected = {n: p.grad for n, p in exact.named_parameters()}
    for n, p in model.named_parameters():
        error = relative(p.grad, expected[n])
        record("a model", error)
        assert error <= 10 * F32, n


def test_a_block():
    """moe.from_torch(block).trainable."""
    from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

    config = MODELS["mixtral"]().model.config
    block = MixtralSparseMoeBlock(config).float().eval()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(1)).mul_(0.1)
    x = torch.randn(9, config.hidden_size, generator=torch.Generator().manual_seed(2))
    plain, sums = (moe.from_torch(copy.deepcopy(block)).trainable(**more)
                   for more in ({}, {"accumulate_into": "grad"}))
    for layer in (plain, sums):
        for part in (x, 2 * x):
            layer(part).square().sum().backward()
    for (n, p), other in zip(sums.named_parameters(), plain.parameters()):
        assert relative(p.grad, other.grad) <= F32, n


def test_hooks_see_each_gradient():
    experts, seen = experts_of(*CLASSES[0]), []
    experts.down_proj.register_hook(seen.append)
    ce.register(accumulate_into="grad")
    for arguments in batches():
        backward(experts, arguments, ce.NAME)
    assert len(seen) == 3
    assert relative(experts.down_proj.grad, sum(seen)) <= F32


@pytest.mark.parametrize("wrong, message", [
    (torch.zeros(3), "main_grad is torch.float32 [3] on 'cpu', expected torch.float32"),
    (torch.zeros(5, 12, 10, dtype=torch.float64), "main_grad is torch.float64"),
    (torch.zeros(5, 10, 12).mT, "main_grad has strides (120, 1, 12), expected a contiguous")])
def test_wrong_memory(wrong, message):
    experts = experts_of(*CLASSES[0])
    experts.down_proj.main_grad = wrong
    ce.register(accumulate_into="main_grad")
    with expect(message):
        backward(experts, next(batches()), ce.NAME)


def test_wrong_place():
    with expect("accumulate_into is 'gradient', expected 'grad', 'main_grad' or None"):
        ce.register(accumulate_into="gradient")
    with expect("accumulate_into is 1"):
        mt.TrainableLayer("", {}, {"accumulate_into": 1})


def test_compiled_graphs_have_gradients_of_their_own():
    torch._dynamo.reset()
    experts = experts_of(*CLASSES[0])
    ce.register(accumulate_into="grad")
    function = torch.compile(lambda *a: experts(*a), backend="aot_eager")
    for arguments in batches(count=2):
        function(*arguments).sum().backward()
    found = experts.down_proj.grad
    experts.zero_grad()
    for arguments in batches(count=2):
        experts(*arguments).sum().backward()
    assert relative(found, experts.down_proj.grad) <= F32
    torch._dynamo.reset()


def test_out_is_needed():
    """A layer that adds does not make the memory that it adds to."""
    experts = experts_of(*CLASSES[0])
    mlir, _, _ = differentiable(experts, 3, (3,))
    module = moe.compile(mlir, options=["--backward=3", "--accumulate=3"])
    signature = module.signature("experts_backward")
    assert [(o.name, o.accumulates) for o in signature.outputs] == [
        ("gate_up_proj_gradient", True)]
    layer = module.layer({n: p.detach() for n, p in experts.named_parameters()
                          if n in [w.name for w in signature.weights]}, "experts_backward")
    given = [torch.zeros([4 if d < 0 else d for d in i.shape],
                         dtype=getattr(torch, {"f32": "float32", "i32": "int32",
                                               "i64": "int64"}[i.dtype]))
             for i in signature.inputs]
    with expect("expected out=, got none: gate_up_proj_gradient are added to what it has"):
        layer(*given)
