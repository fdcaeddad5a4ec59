"""``torch.compile(backend="moe")``: blocks of whole models, and what must stay."""

from __future__ import annotations

import copy
import warnings

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from moe_testing import data  # noqa: E402
from moe_testing.models.hf import MODELS, H  # noqa: E402

pytestmark = pytest.mark.usefixtures("compiled")

F32 = 2e-6
EAGER = {"rest": "eager"}


@pytest.fixture(autouse=True)
def fresh():
    import moe.integrations.dynamo  # noqa: F401  (registers the backend)

    torch._dynamo.reset()
    with torch.no_grad():
        yield


def grouped(model: torch.nn.Module) -> torch.nn.Module:
    """Use transformers' default experts, which break no graph."""
    for module in model.modules():
        if hasattr(module, "config"):
            module.config._experts_implementation = "grouped_mm"
    return model.eval()


def mixtral() -> torch.nn.Module:
    made = MODELS["mixtral"]()
    return grouped(made.block(made.model))


def compiled_operations(function, *arguments, **options):
    """Compile by our backend; returns the result, the operations of ours, and warnings."""
    count = 0

    def rest(graph, inputs):
        nonlocal count
        count += sum(str(n.target).startswith("moe_mlir.layer") for n in graph.graph.nodes)
        return graph.forward

    with warnings.catch_warnings(record=True) as messages:
        warnings.simplefilter("always")
        compiled = torch.compile(function, backend="moe", options={"rest": rest}, **options)
        result = compiled(*arguments)
    left = [str(m.message) for m in messages if "integrations/dynamo" in m.filename]
    return result, count, left, compiled


@pytest.mark.parametrize("family", ["mixtral", "gpt_oss", "deepseek_v3", "llama4_text", "jamba"])
def test_model(family, record):
    """Every block of a model is one operation, for any number of tokens."""
    made = MODELS[family]()
    model = grouped(made.model)
    blocks = len([m for m in model.modules() if type(m) is type(made.block(model))])
    ids = torch.randint(64, (1, 9), generator=torch.Generator().manual_seed(1))
    result, count, messages, compiled = compiled_operations(
        lambda ids: model(ids, use_cache=False)[0], ids)
    assert count == blocks and not messages
    record(f"{family} f32", data.relative_error(result.numpy(), model(ids)[0].numpy()))
    for tokens in (12, 1):
        ids = torch.randint(64, (2, tokens))
        error = data.relative_error(compiled(ids).numpy(), model(ids, use_cache=False)[0].numpy())
        assert error < F32


def test_inductor_takes_the_rest():
    made = MODELS["qwen2_moe"]()
    block = grouped(made.model).model.layers[0]
    after = torch.nn.Linear(H, H)

    def function(x):
        return torch.nn.functional.gelu(after(block.mlp(torch.sin(x))))

    x = torch.randn(1, 7, H)
    compiled = torch.compile(function, backend="moe", dynamic=True)
    assert data.relative_error(compiled(x).numpy(), function(x).numpy()) < F32


def test_weights_are_followed():
    block = mixtral()
    x = torch.randn(1, 7, H)
    _, count, _, compiled = compiled_operations(block, x)
    assert count == 1
    block.experts.down_proj.mul_(2.0)
    assert data.relative_error(compiled(x).numpy(), block(x).numpy()) < F32
    block.gate.weight = torch.nn.Parameter(-block.gate.weight)
    assert data.relative_error(compiled(x).numpy(), block(x).numpy()) < F32


def test_experts_alone():
    """A router that from_torch cannot translate is left, its experts are not."""
    block = mixtral()
    router = block.gate.forward

    def forward(x):
        logits, weights, ids = router(x)
        return logits, torch.erfinv(weights), ids

    block.gate.forward = forward
    x = torch.randn(1, 7, H)
    result, count, messages, _ = compiled_operations(block, x)
    assert count == 1
    assert ["only its experts are compiled: MixtralSparseMoeBlock uses aten.erfinv" in m
            for m in messages] == [True]
    assert data.relative_error(result.numpy(), block(x).numpy()) < F32


class Around(torch.nn.Module):
    def __init__(self, call):
        super().__init__()
        self.mlp = mixtral()
        self.call = call

    def forward(self, x):
        return self.call(self.mlp, x)


class Scaled(torch.nn.Module):
    """A block whose result depends on a second argument."""

    def __init__(self):
        super().__init__()
        block = mixtral()
        self.gate, self.experts = block.gate, block.experts
        self.eval()

    def forward(self, x, scale=1.0):
        rows = x.reshape(-1, H)
        _, weights, ids = self.gate(rows)
        return self.experts(rows, ids, weights * scale).reshape(x.shape)


class Factor(Scaled):
    scaling = 2.0  # until an instance has its own

    def forward(self, x):
        return super().forward(x, scale=self.scaling)


@pytest.mark.parametrize("own", [False, True])
def test_numbers_of_a_module(own):
    """With dynamic shapes they are operands of the graph, and constants of the layer."""
    import moe

    module, x = Factor(), torch.randn(1, 7, H)
    if own:
        module.scaling = 2.0
    result, count, messages, compiled = compiled_operations(module, x, dynamic=True)
    assert count == 1 and not messages
    assert data.relative_error(result.numpy(), module(x).numpy()) < F32
    (module if own else Factor).scaling = 3.0
    with pytest.raises(moe.MoEError, match="attribute of a compiled layer is now 3.0, expected"):
        compiled(x)
    torch._dynamo.reset()
    assert data.relative_error(compiled(x).numpy(), module(x).numpy()) < F32


class Between(torch.nn.Module):
    def __init__(self, call):
        super().__init__()
        self.mlp, self.call = Scaled(), call

    def forward(self, x):
        return self.call(self.mlp, x)


class GroupedMoE(torch.nn.Module):
    """A block without a module of experts."""

    def __init__(self):
        super().__init__()
        draw = torch.Generator().manual_seed(7)
        self.router, self.up, self.down = (
            torch.nn.Parameter(torch.randn(shape, generator=draw) / shape[-1] ** 0.5)
            for shape in ((8, H), (8, 24, H), (8, H, 24)))
        self.eval()

    def forward(self, x):
        rows = x.view(-1, H)
        weights, ids = torch.softmax(rows @ self.router.T, -1).topk(2)
        order = ids.flatten().argsort(stable=True)
        ends = torch.histc(ids.flatten().float(), 8, 0, 8).cumsum(0).to(torch.int32)
        product = torch.ops.transformers.grouped_mm_fallback
        h = torch.relu(product(rows[order // 2], self.up.transpose(1, 2), ends))
        y = product(h, self.down.transpose(1, 2), ends) * weights.flatten()[order].unsqueeze(-1)
        return torch.zeros_like(rows).index_add(0, order // 2, y).view_as(x)


def test_experts_in_the_block():
    import transformers.integrations.moe  # noqa: F401  (registers the grouped product)

    block, x = GroupedMoE(), torch.randn(1, 7, H)
    result, count, messages, compiled = compiled_operations(block, x)
    assert count == 1 and not messages
    block.down.mul_(-3.0)
    for tokens in (7, 12):
        x = torch.randn(1, tokens, H)
        assert data.relative_error(compiled(x).numpy(), block(x).numpy()) < F32


@pytest.mark.parametrize("what, module, operations, message", [
    ("called twice", Around(lambda mlp, x: mlp(mlp(x))), 0, "it is called several times"),
    ("another argument", Between(lambda mlp, x: mlp(x, scale=3.0)), 1,
     "computes something else than by itself"),
    ("a tensor besides its rows", Between(lambda mlp, x: mlp(x, x.mean())), 1,
     "takes 2 tensors"),
    ("default arguments", Between(lambda mlp, x: mlp(x)), 1, None),
])
def test_what_is_no_call_with_rows(what, module, operations, message):
    x = torch.randn(1, 7, H)
    result, count, messages, _ = compiled_operations(module, x)
    assert count == operations
    assert [str(message) in m for m in messages] == ([] if message is None else [True])
    assert data.relative_error(result.numpy(), module(x).numpy()) < F32


def test_logits_of_the_router_are_kept():
    made = MODELS["gpt_oss"]()
    block = grouped(made.block(made.model))
    x = torch.randn(1, 7, H)
    (rows, scores), count, messages, _ = compiled_operations(block, x)
    assert count == 1 and not messages
    expected = block(x)
    assert data.relative_error(rows.numpy(), expected[0].numpy()) < F32
    assert torch.allclose(scores, expected[1])


@pytest.mark.parametrize("training", [False, True])
def test_gradients(training):
    """Also in training mode, where the block computes the same."""
    block = mixtral().train(training)
    x, dy = torch.randn(2, 1, 7, H, generator=torch.Generator().manual_seed(5))
    tensors = {"x": x.requires_grad_(), **dict(block.named_parameters())}
    with torch.enable_grad():
        result, count, messages, _ = compiled_operations(block, x)
        assert count == 1 and not messages
        actual = torch.autograd.grad(result, list(tensors.values()), dy)
        oracle, x = copy.deepcopy(block).double(), x.detach().double().requires_grad_()
        oracle.experts.config._experts_implementation = "eager"  # the others have no float64
        expected = torch.autograd.grad(oracle(x), [x, *oracle.parameters()], dy.double())
    for ours, theirs in zip(actual, expected):
        assert data.relative_error(ours.numpy(), theirs.numpy()) < F32


@pytest.mark.parametrize("family", ["mixtral", "switch_transformers", "jetmoe", "dbrx"])
def test_loops_split_the_graph(family, monkeypatch):
    """At the first call only: from the next one on the block is one operation."""
    from moe.integrations._layers import operation

    calls, run = [], operation.run
    monkeypatch.setattr(operation, "run", lambda *a: calls.append(1) or run(*a))
    made = MODELS[family]()
    block = made.block(made.model).eval()  # with loops over experts
    around = torch.nn.Sequential(torch.nn.Tanh(), block)
    x = torch.randn(1, 7, H)
    result, _, messages, compiled = compiled_operations(around, x)
    assert ["a graph break splits it now; it is one operation from its next call on" in m
            for m in messages] == [True]
    assert data.relative_error(result.numpy(), around(x).numpy()) < F32
    for shape in ((1, 7, H), (1, 12, H), (2, 9, H)):
        x = torch.randn(shape)
        calls.clear()
        with warnings.catch_warnings():
            warnings.filterwarnings("error", ".*it is not compiled")
            y = compiled(x)
        assert len(calls) == (family != "switch_transformers" or shape[0] == 1)
        assert data.relative_error(y.numpy(), around(x).numpy()) < F32
    for parameter in block.parameters():
        parameter.mul_(1.5)
    x = torch.randn(1, 7, H)
    assert data.relative_error(compiled(x).numpy(), around(x).numpy()) < F32


def test_equal_layers_are_translated_once(monkeypatch):
    from moe.integrations import dynamo

    made = MODELS["olmoe"]()
    model = grouped(made.model)
    calls = []
    monkeypatch.setattr(dynamo, "_translations", {})
    monkeypatch.setattr(dynamo, "_of_other_sizes", {})
    original = dynamo.import_module
    monkeypatch.setattr(dynamo, "import_module",
                        lambda *a, **k: calls.append(1) or original(*a, **k))
    ids = torch.randint(64, (1, 9))
    _, count, _, compiled = compiled_operations(lambda i: model(i, use_cache=False)[0], ids)
    compiled(torch.randint(64, (1, 4)))
    assert count >= 2 and len(calls) == 1


def test_layers_that_differ_in_a_number(monkeypatch):
    """Of two that are equal but for a factor, which bf16 rounds to nearly the same."""
    one, two = Factor().bfloat16(), Factor().bfloat16()
    two.load_state_dict(one.state_dict())
    one.scaling, two.scaling = 1.0, 1.01
    x = torch.randn(1, 7, H, dtype=torch.bfloat16)
    for module in (one, two):
        _, count, _, compiled = compiled_operations(module, x)
        assert count == 1
        module.result = compiled(x).float()
    ratio = (two.result.norm() / one.result.norm()).item()
    assert abs(ratio - 1.01) < 2e-3


def test_autocast_is_left():
    block = mixtral()

    def function(x):
        with torch.autocast("cpu", torch.bfloat16):
            return block(x)

    x = torch.randn(1, 7, H)
    result, count, messages, _ = compiled_operations(function, x)
    assert count == 0
    assert ["it is not compiled" in m for m in messages] == [True]
    assert torch.equal(result, function(x))


class Changed(Scaled):
    """The block with something before and after it."""

    def __init__(self, before=lambda self, x: x, after=lambda self, x, y: y):
        super().__init__()
        self.before, self.after = before, after
        self.a, self.b = (torch.nn.Linear(H, H, bias=False) for _ in "ab")
        self.register_buffer("count", torch.zeros(8))
        self.eval()

    def forward(self, x, **more):
        return self.after(self, x, super().forward(self.before(self, x, **more)))


def test_weights_in_other_places():
    x = torch.randn(1, 16, H)
    for one, two in (("a", "b"), ("b", "a")):
        module = Changed(lambda self, x, one=one: torch.tanh(getattr(self, one)(x)),
                         lambda self, x, y, two=two: y + getattr(self, two)(x))
        torch._dynamo.reset()
        result, count, _, _ = compiled_operations(module, x)
        assert count == 1
        assert data.relative_error(result.numpy(), module(x).numpy()) < F32


def test_rows_that_depend_on_the_batch():
    module = Changed(lambda self, x: x * x.softmax(0))
    for shape in ((1, 32, H), (4, 8, H)):
        result, *_ = compiled_operations(module, x := torch.randn(shape), dynamic=False)
        assert data.relative_error(result.numpy(), module(x).numpy()) < F32


def first_kept(self, x, keep_first=False):
    return x if not keep_first else torch.cat([x[:, :1] * 2, x[:, 1:]], 1)


def limited(self, x, limit=100.0):
    return x.clamp(-limit, limit)


@pytest.mark.parametrize("before, more", [(first_kept, dict(keep_first=True)),
                                          (limited, dict(limit=6.0)),
                                          (lambda self, x, scale=1.0: x * scale,
                                           dict(scale=1.025))])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_arguments_that_change_little(before, more, dtype):
    """One row of many, what a limit cuts, a factor near 1: never the block by itself."""
    module = Changed(before).to(dtype)
    outer = torch.nn.Module()
    outer.mlp = module
    outer.forward = lambda x: module(x, **more)
    _, count, messages, _ = compiled_operations(outer.forward, torch.randn(1, 16, H).to(dtype))
    assert ["computes something else than by itself" in m for m in messages] == [True]


def test_writes_are_kept():
    def count(self, x, track=False):
        if track:
            self.count.add_(1.0)
        return x

    module = Changed(count)
    compiled = torch.compile(lambda x: module(x, track=True), backend="moe", options=EAGER)
    for _ in range(3):
        compiled(torch.randn(1, 7, H))
    assert module.count[0].item() == 3.0


def test_other_results_keep_their_writes():
    def after(self, x, y):
        other = torch.sin(x)
        other += 5.0
        other[:, 0].add_(1.0)
        return y, other

    module, x = Changed(after=after), torch.randn(1, 7, H)
    result, *_ = compiled_operations(module, x)
    for actual, expected in zip(result, module(x)):
        assert data.relative_error(actual.numpy(), expected.numpy()) < F32


def test_no_rows_at_first():
    block = mixtral()
    result, count, messages, compiled = compiled_operations(block, torch.randn(1, 0, H))
    assert result.shape == (1, 0, H) and "it has no rows now" in messages[0]
    x = torch.randn(1, 7, H)
    assert data.relative_error(compiled(x).numpy(), block(x).numpy()) < F32


def test_a_block_that_an_object_holds():
    class Runner:
        def __init__(self, block):
            self.parts = {"block": block}

        def step(self, x):
            return self.parts["block"](x)

    runner = Runner(mixtral())
    _, count, messages, _ = compiled_operations(runner.step, torch.randn(1, 7, H))
    assert count == 1 and not messages


def test_no_gradients_inside_the_function():
    block = mixtral()

    def function(x):
        with torch.no_grad():
            return block(x)

    with torch.enable_grad():
        _, count, messages, _ = compiled_operations(function, torch.randn(1, 7, H))
    assert count == 1 and not messages


def test_a_copy_has_its_own_weights():
    one = mixtral()
    two = copy.deepcopy(one)
    two.experts.down_proj.mul_(3.0)
    x = torch.randn(1, 7, H)
    _, _, _, first = compiled_operations(one, x)
    second, *_ = compiled_operations(two, x)
    assert data.relative_error(first(x).numpy(), one(x).numpy()) < F32
    assert data.relative_error(second.numpy(), two(x).numpy()) < F32


class FeedForward(torch.nn.Module):
    """gpt-fast's: neither its name nor that of a part says that it has experts."""

    def __init__(self, experts=True):
        super().__init__()
        draw = torch.Generator().manual_seed(7)
        self.gate, self.experts_ = torch.nn.Linear(H, 8, bias=False), experts
        self.w1, self.w2 = (torch.nn.Parameter(torch.randn(8, *shape, generator=draw) / 6)
                            for shape in ((24, H), (H, 24)))

    def forward(self, x):
        x = x.view(-1, H)
        weights, ids = torch.topk(self.gate(x).softmax(-1), 2)
        if not self.experts_:  # the best ones of something else
            return x * weights.sum(-1, keepdim=True)
        h = torch.nn.functional.silu(torch.einsum("ti,taoi->tao", x, self.w1[ids]))
        return torch.einsum("tai,ta->ti", torch.einsum("tao,taio->tai", h, self.w2[ids]), weights)


@pytest.mark.parametrize("experts", [True, False])
def test_experts_without_a_name(experts):
    block = FeedForward(experts).eval()
    norm = torch.nn.RMSNorm(H)

    def function(x):
        return x + block(norm(x)).view_as(x)

    x = torch.randn(1, 7, H)
    result, count, messages, _ = compiled_operations(function, x, dynamic=True)
    assert count == experts and not messages
    assert data.relative_error(result.numpy(), function(x).numpy()) < F32
