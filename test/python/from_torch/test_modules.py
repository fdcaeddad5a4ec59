"""Modules of any origin, traced: experts that are written out, sums over tokens, masks, norms,
modules that change themselves. What has no translation runs in Python, with a warning."""

from __future__ import annotations

import copy
import math

import pytest

import moe

torch = pytest.importorskip("torch")

from moe_testing import data  # noqa: E402

pytestmark = pytest.mark.usefixtures("compiled")

# Of the largest result: sums in another order.
F32 = 2e-6
H = 32
AS_IT_IS = "ignore:.*has nothing that is known as experts"


def in_python(message, block, x):
    """A block that has no translation: a warning with the reason, and its own result."""
    with pytest.warns(UserWarning, match=f"runs in Python: .*{message}"):
        imported = moe.from_torch(block, example=x[..., :4, :])
    with torch.no_grad():
        expected = block(x)
    assert torch.equal(imported.layer()(x.reshape(-1, x.shape[-1])), expected.reshape(
        -1, x.shape[-1]))



# -- experts that are written out ---------------------------------------------


def test_loops_in_the_block():
    """A loop over experts that depends on the choice and is no module of its own."""

    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gate = torch.nn.Linear(8, 4)
            self.members = torch.nn.ModuleList(torch.nn.Linear(8, 8) for _ in range(4))

        def forward(self, x):
            ids = self.gate(x).argmax(-1)
            out = torch.zeros_like(x)
            for e in ids.unique().tolist():
                out[ids == e] = self.members[e](x[ids == e])
            return out

    block, x = Block().eval(), torch.randn(9, 8)
    imported = moe.from_torch(block)
    assert imported.mlir.count("moe.dispatch") == 1
    with torch.no_grad():
        assert data.relative_error(imported.layer()(x).numpy(), block(x).numpy()) < F32


class Expert(torch.nn.Module):
    def __init__(self, draw):
        super().__init__()
        self.up, self.down = torch.nn.Linear(H, 20), torch.nn.Linear(20, H)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=draw) / p.shape[-1] ** 0.5)

    def forward(self, x):
        return self.down(torch.nn.functional.gelu(self.up(x)))


class LoopedExperts(torch.nn.Module):
    """A loop over modules; ``spoil`` makes one of them, or the sum, something else."""

    def __init__(self, spoil=""):
        super().__init__()
        draw = torch.Generator().manual_seed(5)
        self.members = torch.nn.ModuleList(Expert(draw) for _ in range(6))
        self.spoil = spoil

    def forward(self, x, ids, weights):
        if self.spoil == "rows":
            x = x / x.shape[0]
        if self.spoil == "largest":
            x = x / x.abs().max()
        out = torch.zeros_like(x)
        for e, expert in enumerate(self.members):
            token, choice = torch.where(ids == e)
            y = expert(x[token]) * weights[token, choice, None]
            if self.spoil == "third" and e == 2:
                y = 2 * y
            out.index_add_(0, token, y)
        return out.relu() if self.spoil == "sum" else out


class LoopedBlock(torch.nn.Module):
    def __init__(self, spoil=""):
        super().__init__()
        self.gate = torch.nn.Linear(H, 6, bias=False)
        with torch.no_grad():
            self.gate.weight.copy_(torch.randn(6, H, generator=torch.Generator().manual_seed(2)))
        self.experts = LoopedExperts(spoil)

    def forward(self, x):
        weights, ids = self.gate(x).softmax(-1).topk(2, -1)
        return self.experts(x, ids, weights)


def test_loop_over_modules(record):
    block, x = LoopedBlock().eval(), torch.randn(31, H, generator=torch.Generator().manual_seed(3))
    imported = moe.from_torch(block, example=x)
    assert imported.weights["experts.members.*.up.weight"].shape == (6, 20, H)
    error = data.relative_error(imported.layer()(x).numpy(), block(x).detach().numpy())
    record("loop over modules", error)
    assert error < F32


def test_one_expert():
    class One(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gate = torch.nn.Linear(H, 1)
            self.experts = LoopedExperts()
            self.experts.members = self.experts.members[:1]

        def forward(self, x):
            weights, ids = self.gate(x).sigmoid().topk(1, -1)
            return self.experts(x, ids, weights)

    block, x = One().eval(), torch.randn(9, H)
    y = moe.from_torch(block, example=x).layer()(x)
    assert data.relative_error(y.numpy(), block(x).detach().numpy()) < F32


@pytest.mark.parametrize("spoil", ["sum", "rows", "largest"])
def test_more_than_a_loop(spoil):
    """What is not the sum of the experts alone is read in the graph of the block."""
    block = LoopedBlock(spoil).eval()
    imported = moe.from_torch(block, example=torch.zeros(7, H))
    assert imported.mlir.count("moe.dispatch") == 1
    layer = imported.layer()
    for tokens in (33, 1):
        x = torch.randn(tokens, H, generator=torch.Generator().manual_seed(3))
        error = data.relative_error(layer(x).numpy(), block(x).detach().numpy())
        assert error < F32


def test_a_loop_that_is_something_else():
    in_python("LoopedExperts: the function of expert 0 is not that of all experts, or their "
              "results are not added", LoopedBlock("third").eval(), torch.randn(7, H))


# -- programs and errors ------------------------------------------------------


def test_exported_program():
    class Linear(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a = torch.nn.Linear(8, 8)

        def forward(self, x):
            return torch.nn.functional.silu(self.a(x))

    module, x = Linear().eval(), torch.randn(5, 8)
    program = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim("n", min=2)},))
    y = moe.from_torch(program).layer()(x)
    assert data.relative_error(y.numpy(), module(x).detach().numpy()) < F32


@pytest.mark.filterwarnings(AS_IT_IS, "ignore:.*runs in Python")
def test_programs_for_one_number_of_tokens():
    """They are compiled for it, or run in Python with what would help."""

    def program(function):
        return torch.export.export(Of(function).eval(), (torch.randn(5, 8),))

    x = torch.randn(5, 8)
    layer = moe.from_torch(program(lambda m, x: torch.tanh(x @ m))).layer()
    torch.testing.assert_close(layer(x), torch.tanh(x @ torch.ones(8, 8)))
    with pytest.raises(moe.MoEError, match="extent 0 is 4, expected 5"):
        layer(x[:4])
    imported = moe.from_torch(program(lambda m, x: (x @ m).topk(2)[0].sum(-1, keepdim=True) + x))
    assert "exported for one number of tokens, expected a dynamic one" in imported.reason


def linear(columns=8):
    return torch.nn.Linear(columns, columns).eval()


class Of(torch.nn.Module):
    """A module with one matrix that computes ``function`` of its rows."""

    def __init__(self, function):
        super().__init__()
        self.matrix, self.function = torch.nn.Parameter(torch.ones(8, 8)), function

    def forward(self, x):
        return self.function(self.matrix, x)


@pytest.mark.parametrize("function, message", [
    (lambda m, x: x.cumprod(-2), "cumprod.default, which has no translation"),
    (lambda m, x: x * (x.shape[-2] & 1), "of the number of tokens, which has no translation"),
    (lambda m, x: x[..., :1].expand(x.shape).scatter(
        -1, torch.zeros(x.shape, dtype=torch.int64), x, reduce="add"), "with reduce='add'"),
    (lambda m, x: torch.addmm(x[0], x[0], m, beta=0.5), "scales a matmul in aten.addmm"),
    (lambda m, x: x.index_select(-1, torch.arange(8)), "along another dimension than the first"),
    (lambda m, x: x[0, 0] + x, "selects a token"),
    (lambda m, x: x.norm(float("inf"), -1, keepdim=True) + x, "the norm of order inf"),
])
def test_what_has_no_translation(function, message):
    in_python(message, Of(function).eval(), torch.randn(1, 8, 8))


@pytest.mark.filterwarnings(AS_IT_IS)
@pytest.mark.parametrize("function", [
    lambda m, x: x / x.shape[-2],
    lambda m, x: x * math.ceil(0.3 * x.shape[-2]),
    lambda m, x: x * (x.shape[-2] % 3),
    lambda m, x: x.mean(-2, keepdim=True) + x,
    lambda m, x: x.cumsum(-2) + x.cumsum(-1),
    lambda m, x: x * ((x > 0).cumsum(-2) <= x.shape[-2] // 3),
    lambda m, x: x + (x > 0).sum(-2, keepdim=True),
    lambda m, x: x * (x.argmax(-1, keepdim=True) + 1),
    lambda m, x: x.max(-1, keepdim=True).values - x,
])
@pytest.mark.parametrize("tokens", [1, 32, 33])
def test_sums_over_tokens(function, tokens):
    """The result of a token depends on others, and on how many there are."""
    block, x = Of(function).eval(), torch.randn(1, tokens, 8)
    with torch.no_grad():
        expected = block(x)
    y = moe.from_torch(block).layer()(x[0])
    assert data.relative_error(y.numpy(), expected[0].numpy()) < F32


class Masked(torch.nn.Module):
    """Experts that get a mask ``[T, K, E]`` in place of ids; ``make`` makes it of logits."""

    def __init__(self, make):
        super().__init__()
        draw = torch.Generator().manual_seed(2)
        self.gate = torch.nn.Parameter(torch.randn(6, H, generator=draw))
        self.experts, self.make = MaskedExperts(), make

    def forward(self, x):
        logits = x @ self.gate.T
        weights, mask = self.make(logits)
        return self.experts(x, mask, weights)


class MaskedExperts(LoopedExperts):
    def forward(self, x, mask, weights):
        out = torch.zeros_like(x)
        for e, expert in enumerate(self.members):
            token, choice = torch.where(mask[..., e])
            out.index_add_(0, token, expert(x[token]) * weights[token, choice, None])
        return out


def one_hot(ids, count=6):
    return torch.nn.functional.one_hot(ids, count)


def best_mask(logits):
    weights, ids = logits.softmax(-1).topk(2, -1)
    return weights, one_hot(ids)


def dropped_mask(logits):
    """With a capacity, counted over both choices."""
    weights, ids = logits.softmax(-1).topk(2, -1)
    mask = one_hot(ids)
    return weights, mask * (mask.flatten(0, 1).cumsum(0).view_as(mask) <= 4)


def some_mask(logits):
    """Any number of experts."""
    return logits.sigmoid().amax(-1, keepdim=True), (logits > 0.5).unsqueeze(1).long()


def shifted_mask(logits):
    """Marks of the next expert; a sum of masks marks two."""
    weights, ids = logits.softmax(-1).topk(2, -1)
    mask = one_hot(ids + 1, 7)[..., 1:] + one_hot((ids + 1) % 6)
    return weights, mask


def transposed_mask(logits):
    """Marks along the choices: square, in the other layout."""
    weights, ids = logits.softmax(-1).topk(6, -1)
    return weights, one_hot(ids).transpose(1, 2)


@pytest.mark.parametrize("make, choices", [
    (best_mask, 2), (dropped_mask, 2), (some_mask, 6), (shifted_mask, 12), (transposed_mask, 36)],
    ids=lambda v: getattr(v, "__name__", None))
def test_masks(make, choices):
    block, x = Masked(make).eval(), torch.randn(31, H, generator=torch.Generator().manual_seed(3))
    imported = moe.from_torch(block, example=x)
    assert f"tensor<?x{choices}xi32>\n" in imported.mlir.split("moe.dispatch")[1]
    with torch.no_grad():
        assert data.relative_error(imported.layer()(x).numpy(), block(x).numpy()) < F32


def test_modules_that_change_themselves():
    """What a call assigns to the module is not there after a trace."""

    class Changing(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.matrix = torch.nn.Linear(8, 8)

        def forward(self, x):
            self.matrix = self.matrix.to(torch.float32)
            self.last, self.tokens = x.dtype, x.shape[-2]
            return self.matrix(x.float()).to(self.last)

    module = Changing().bfloat16().eval()
    before = dict(module.__dict__), module.matrix, module.matrix.weight
    with pytest.warns(UserWarning, match="has nothing that is known as experts"):
        layer = moe.from_torch(module).layer()
    assert (dict(module.__dict__), module.matrix, module.matrix.weight) == before
    assert module.matrix.weight.dtype == torch.bfloat16
    x = torch.randn(5, 8).bfloat16()
    assert torch.equal(layer(x), module(x))


class Remembers(torch.nn.Module):
    """What a call leaves behind in ``last`` is added in the next one."""

    def __init__(self, last, leave):
        super().__init__()
        self.matrix, self.last, self.leave = torch.nn.Linear(8, 8), last, leave

    def forward(self, x):
        y = self.matrix(x) + self.last
        self.leave(self, y)
        return y


def leave_number(module, y):
    module.last += 1.0


def leave_tensor(module, y):
    module.last = y[..., -1, :].detach()


def leave_in_place(module, y):
    module.last.copy_(y.reshape(-1, 8)[-1].detach())


@pytest.mark.parametrize("last, leave", [
    (0.0, leave_number), (torch.zeros(8), leave_tensor), (torch.zeros(8), leave_in_place)])
@pytest.mark.parametrize("example", [None, torch.zeros(4, 8)])
def test_modules_that_remember(last, leave, example):
    """They run in Python, whether the trace is given rows or makes them."""
    block = Remembers(copy.deepcopy(last), leave).eval()
    with pytest.warns(UserWarning, match="Remembers runs in Python: .*"):
        imported = moe.from_torch(block, example=example)
    assert "computes something else in each call" in imported.reason or (
        "last is mutated in the forward" in imported.reason)


def test_what_is_returned():
    with pytest.raises(moe.MoEError, match="Of returns a dict, expected rows, alone or first"):
        moe.from_torch(Of(lambda m, x: {"y": x @ m}).eval())
    block, x = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 5)).eval(), (
        torch.randn(3, 8))
    with pytest.warns(UserWarning, match="nothing that is known as experts"):
        imported = moe.from_torch(block)
    assert data.relative_error(imported.layer()(x).numpy(), block(x).detach().numpy()) < F32
    assert imported.module()(torch.randn(2, 3, 8)).shape == (2, 3, 5)


class Normalized(torch.nn.Module):
    """Norms before the router and in every expert."""

    def __init__(self, norm):
        super().__init__()
        draw = torch.Generator().manual_seed(4)
        self.norm, self.gate = norm(H), torch.nn.Linear(H, 4)
        self.members = torch.nn.ModuleList(torch.nn.Sequential(
            torch.nn.Linear(H, 20), norm(20), torch.nn.ReLU(), torch.nn.Linear(20, H))
            for _ in range(4))
        with torch.no_grad():
            for t in [*self.parameters(), *self.buffers()]:
                if t.is_floating_point():
                    t.copy_(torch.rand(t.shape, generator=draw) + (-0.5 if t.ndim > 1 else 0.5))

    def forward(self, x):
        x = self.norm(x)
        weights, ids = self.gate(x).softmax(-1).topk(2, -1)
        y = torch.zeros_like(x)
        for e, expert in enumerate(self.members):
            token, choice = torch.where(ids == e)
            y.index_add_(0, token, expert(x[token]) * weights[token, choice, None])
        return y.nan_to_num(nan=7.0)


@pytest.mark.filterwarnings("ignore:.*an expert is left to loops")
@pytest.mark.parametrize("norm", [
    torch.nn.LayerNorm, lambda n: torch.nn.LayerNorm(n, bias=False, eps=0.1),
    lambda n: torch.nn.LayerNorm(n, elementwise_affine=False), torch.nn.RMSNorm,
    torch.nn.BatchNorm1d, lambda n: torch.nn.BatchNorm1d(n, affine=False)])
def test_norms(norm):
    block, x = Normalized(norm).eval(), torch.randn(17, H) * 3 + 1
    x[3] = torch.nan
    imported = moe.from_torch(block)
    assert imported.mlir.count("moe.dispatch") == 1
    with torch.no_grad():
        assert data.relative_error(imported.layer()(x).numpy(), block(x).numpy()) < F32


def test_rows_that_cannot_be_seen():
    with pytest.raises(moe.MoEError, match="ReLU has no matrix in f32, bf16 or f16"):
        moe.from_torch(torch.nn.ReLU().eval())
    program = torch.export.export(linear(), (torch.zeros(2, 4, 8),))
    with pytest.raises(moe.MoEError, match=r"the program takes \(2, 4, 8\), expected \[T, H\]"):
        moe.from_torch(program)
    two = torch.export.export(Of(lambda m, x: x[0] + x[1]).eval(),
                              ((torch.zeros(4, 8), torch.zeros(4, 8)),))
    with pytest.raises(moe.MoEError, match="the program takes 2 tensors, expected one: its rows"):
        moe.from_torch(two)


class Elementwise(torch.nn.Module):
    """What activations of experts and scores of routers are made of, side by side."""

    FUNCTIONS = [
        torch.ceil, torch.round, torch.sign, torch.sin, torch.cos, torch.exp2, torch.log2,
        torch.log10, torch.nn.ELU(0.7), torch.nn.SELU(), torch.nn.CELU(1.3),
        torch.nn.LeakyReLU(0.2), torch.nn.Hardtanh(-0.5, 2.0), torch.nn.ReLU6(),
        torch.nn.Softshrink(), torch.nn.Mish(), torch.nn.Hardswish()]

    def forward(self, x):
        return torch.cat([function(x) for function in self.FUNCTIONS], -1)


def test_elementwise_functions():
    """Also of zeros, infinities, halves between two whole numbers and values that are none."""
    block = Elementwise().eval()
    imported = moe.from_torch(block, example=torch.randn(3, 8))
    assert imported.reason is None
    x = torch.linspace(-9, 9, 7 * 8).reshape(7, 8)
    x[0] = torch.tensor([0.0, -0.0, 0.5, 1.5, -2.5, torch.nan, torch.inf, -torch.inf])
    for function, y, expected in zip(block.FUNCTIONS, imported.layer()(x).split(8, -1),
                                     block(x).split(8, -1)):
        torch.testing.assert_close(y, expected, rtol=1e-6, atol=1e-6, equal_nan=True,
                                   msg=lambda text, f=function: f"{f}: {text}")
