"""Blocks that break the graph of ``torch.compile`` in a loop of their own, and experts that are
modules each."""

from __future__ import annotations

import warnings

import pytest

torch = pytest.importorskip("torch")

from moe_testing import data  # noqa: E402

pytestmark = pytest.mark.usefixtures("compiled")

F32 = 2e-6
H, I, E, K = 16, 24, 4, 2


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    import moe.integrations.dynamo  # noqa: F401  (registers the backend)
    from moe.integrations._layers import operation

    calls, run = [], operation.run
    monkeypatch.setattr(operation, "run", lambda *a: calls.append(1) or run(*a))
    torch._dynamo.reset()
    with torch.no_grad():
        yield calls


class Expert(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = torch.nn.Linear(H, I), torch.nn.Linear(I, H)

    def forward(self, x):
        return self.down(torch.relu(self.up(x)).square())


class Modules(torch.nn.Module):
    """A loop that skips experts without tokens."""

    def __init__(self, scales=(1.0,) * E):
        super().__init__()
        self.gate = torch.nn.Linear(H, E, bias=False)
        self.experts = torch.nn.ModuleList(Expert() for _ in range(E))
        self.scales = scales

    def choose(self, x):
        weights, ids = torch.sigmoid(self.gate(x)).topk(K, -1)
        return weights / weights.sum(-1, keepdim=True), ids

    def forward(self, x):
        rows = x.reshape(-1, H)
        weights, ids = self.choose(rows)
        out = torch.zeros_like(rows)
        for expert, scale, i in zip(self.experts, self.scales, range(E)):
            mask = ids == i
            token = torch.where(mask.any(-1))[0]
            if token.numel() == 0:
                continue
            weight = (weights * mask).sum(-1)[token]
            y = expert(rows[token]) if scale == 1.0 else expert(rows[token] * scale)
            out = out.index_add(0, token, y * weight[:, None])
        return out.view(x.shape)


class Every(Modules):
    """Each expert computes all tokens: no break."""

    def forward(self, x):
        rows = x.reshape(-1, H)
        weights, ids = self.choose(rows)
        out = torch.zeros_like(rows)
        for i, expert in enumerate(self.experts):
            out = out + expert(rows) * (weights * (ids == i)).sum(-1)[:, None]
        return out.view(x.shape)


class Stacked(torch.nn.Module):
    """Neither its name nor that of a part says that it has experts."""

    def __init__(self):
        super().__init__()
        self.gate = torch.nn.Linear(H, E, bias=False)
        self.w1 = torch.nn.Parameter(torch.randn(E, I, H) / 4)
        self.w2 = torch.nn.Parameter(torch.randn(E, H, I) / 5)

    def forward(self, x):
        linear, rows = torch.nn.functional.linear, x.reshape(-1, H)
        weights, ids = self.gate(rows).softmax(-1).topk(K, -1)
        out = torch.zeros_like(rows)
        for e in range(E):
            token, choice = torch.where(ids == e)
            h = torch.relu(linear(rows[token], self.w1[e]))
            out.index_add_(0, token, linear(h, self.w2[e]) * weights[token, choice, None])
        return out.view(x.shape)


class Pooling(torch.nn.Module):
    """A choice and a loop without experts."""

    def __init__(self):
        super().__init__()
        self.w = torch.nn.Linear(H, H)

    def forward(self, x):
        rows = x.reshape(-1, H)
        best = rows.topk(K, -1)[1]
        for i in range(2):
            at = torch.where(best == i)[0]
            if at.numel():
                rows = rows.index_add(0, at, self.w(rows[at]))
        return rows.view(x.shape)


class Model(torch.nn.Module):
    def __init__(self, *blocks):
        super().__init__()
        self.layers = torch.nn.ModuleList(blocks)
        self.norm = torch.nn.LayerNorm(H)

    def forward(self, x):
        for block in self.layers:
            x = x + block(self.norm(x))
        return x


def run(module):
    """Compile a module; returns what is to be called, and the warnings of the first call."""
    x = torch.randn(1, 9, H, generator=torch.Generator().manual_seed(1))
    with warnings.catch_warnings(record=True) as messages:
        warnings.simplefilter("always")
        compiled = torch.compile(module.eval(), backend="moe", options={"rest": "eager"})
        result = compiled(x)
    assert data.relative_error(result.numpy(), module(x).numpy()) < F32
    return compiled, [str(m.message) for m in messages if "integrations/dynamo" in m.filename]


def compare(calls, compiled, module, operations):
    for shape in ((1, 9, H), (1, 12, H), (2, 7, H)):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(2))
        compiled(x)  # which may compile it, and compare
        calls.clear()
        y = compiled(x)
        assert len(calls) == operations
        assert data.relative_error(y.numpy(), module(x).numpy()) < F32


@pytest.mark.parametrize("make, blocks", [
    (lambda: Model(Modules(), Modules()), 2), (lambda: Modules(), 1), (lambda: Stacked(), 1),
    (lambda: torch.nn.Sequential(torch.nn.Tanh(), Stacked()), 1)],
    ids=["in a loop of layers", "alone", "stacked", "in a sequence"])
def test_loops(fresh, make, blocks):
    """No backend is called for them; they are operations from the next call on."""
    torch.manual_seed(3)
    module = make()
    compiled, messages = run(module)
    assert ["it is one operation from its next call on" in m for m in messages] == [True] * blocks
    compare(fresh, compiled, module, blocks)
    for parameter in module.parameters():
        parameter.mul_(1.25)
    compare(fresh, compiled, module, blocks)


def test_what_stays_says_why(fresh):
    module = Modules(scales=(1.0, 2.0, 1.0, 1.0))
    compiled, messages = run(module)
    assert ["it is not compiled, as a graph break splits it" in m for m in messages] == [True]
    compare(fresh, compiled, module, 0)


def test_what_has_no_experts(fresh):
    module = Pooling()
    compiled, messages = run(module)
    assert not messages
    compare(fresh, compiled, module, 0)


def test_modules_without_breaks(fresh):
    """Their weights are parts of one of the layer."""
    torch.manual_seed(3)
    module = Model(Every(), Every())
    compiled, messages = run(module)
    assert not messages
    compare(fresh, compiled, module, 2)
    module.layers[1].experts[2].down.weight.mul_(-3.0)
    compare(fresh, compiled, module, 2)


def test_gradients_of_modules(fresh):
    torch.manual_seed(3)
    block = Every().eval()
    x, dy = torch.randn(2, 1, 9, H, generator=torch.Generator().manual_seed(5))
    tensors = [x.requires_grad_(), *block.parameters()]
    with torch.enable_grad():
        compiled = torch.compile(block, backend="moe", options={"rest": "eager"})
        actual = torch.autograd.grad(compiled(x), tensors, dy)
        oracle, x64 = Every().double(), x.detach().double().requires_grad_()
        oracle.load_state_dict(block.state_dict())
        expected = torch.autograd.grad(oracle(x64), [x64, *oracle.parameters()], dy.double())
    for ours, theirs in zip(actual, expected):
        assert data.relative_error(ours.numpy(), theirs.numpy()) < F32


class Numbers(Modules):
    def __init__(self):
        super().__init__()
        self.factor, self.top_k = 1.0, K

    def choose(self, x):
        weights, ids = torch.sigmoid(self.gate(x)).topk(self.top_k, -1)
        return weights * (0.5 if self.training else self.factor), ids


def another_expert(block):
    block.experts[2] = torch.nn.Sequential(torch.nn.Linear(H, H), torch.nn.Tanh())


CHANGES = {
    "a number": lambda block: setattr(block, "factor", 3.0),
    "fewer choices": lambda block: setattr(block, "top_k", 1),
    "training": lambda block: block.train(),
    "an expert of another class": another_expert,
    "a bias": lambda block: setattr(block, "gate", torch.nn.Linear(H, E)),
}


@pytest.mark.parametrize("change", list(CHANGES))
@pytest.mark.parametrize("reset", (False, True), ids=("", "reset"))
def test_changed_block_runs_as_it_is(change, reset, fresh):
    block = Numbers()
    compiled, _ = run(block)
    x = torch.randn(1, 9, H, generator=torch.Generator().manual_seed(2))
    fresh.clear()
    compiled(x)
    assert fresh  # it has been replaced
    CHANGES[change](block)
    if reset:
        torch._dynamo.reset()
    assert data.relative_error(compiled(x).numpy(), block(x).numpy()) < F32
