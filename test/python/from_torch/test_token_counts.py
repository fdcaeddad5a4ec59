"""Modules in which Python decides by the number of tokens."""

from __future__ import annotations

import math
import random
import re
import warnings

import moe
import pytest

torch = pytest.importorskip("torch")

from moe_testing import data  # noqa: E402
from torch import nn  # noqa: E402

pytestmark = pytest.mark.usefixtures("compiled")

F32 = 2e-6
E, H, I = 3, 16, 20


class Expert(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(H, I), nn.Linear(I, H)

    def forward(self, x):
        return self.down(torch.relu(self.up(x)))


class Block(nn.Module):
    """A block that ``decide`` gives its rows and what computes ``k`` experts of rows."""

    def __init__(self, decide):
        super().__init__()
        self.gate, self.decide = nn.Linear(H, E), decide
        self.experts = nn.ModuleList(Expert() for _ in range(E))

    def routed(self, x, k=2):
        weights, ids = self.gate(x).softmax(-1).topk(k, -1)
        y = torch.zeros_like(x)
        for e, expert in enumerate(self.experts):
            token, choice = torch.where(ids == e)
            y.index_add_(0, token, expert(x[token]) * weights[token, choice, None])
        return y

    def forward(self, x):
        return self.decide(self.routed, x)


def more_than_four(f, x):
    return f(x, 2 if x.shape[0] > 4 else 1)


def one(f, x):
    return f(x, 1 if x.shape[0] == 1 else 2)


def even(f, x):
    return f(x, 1 + len(x) % 2)


def more_than_many(f, x):
    return f(x, 1 if x.size(0) > 100 else 2)


def by_elements(f, x):
    return f(x, 1 if x.numel() < 3 * H else 2)


def pieces(f, x):
    return torch.cat([f(p - p.mean(0)) for p in x.split(16)])


def rounded(f, x):
    """A number of Python that has no rule."""
    return f(x) * round(x.shape[0] / 7)


def more_than_too_many(f, x):
    return f(x, 1 if x.shape[0] > 20000 else 2)


DEPEND = [more_than_four, one, even, more_than_many, by_elements, pieces, rounded,
          more_than_too_many]


def check(module, imported, tokens=(1, 2, 5, 17, 101)):
    layer = imported.layer()
    for count in tokens:
        x = torch.randn(count, H, generator=torch.Generator().manual_seed(count))
        with torch.no_grad():
            expected = module(x)
        assert data.relative_error(torch.as_tensor(layer(x)).numpy(), expected.numpy()) < F32, count


@pytest.mark.parametrize("decide", DEPEND, ids=lambda f: f.__name__)
def test_what_depends_on_it(decide):
    """It runs in Python, and a warning says why."""
    torch.manual_seed(0)
    block = Block(decide).eval()
    with pytest.warns(UserWarning, match="runs in Python: .*number of tokens"):
        imported = moe.from_torch(block)
    assert imported.reason is not None
    check(block, imported)


def shortcut(f, x):
    """Both branches compute the same."""
    return f(x) if x.shape[0] > 4 else f(torch.cat([x, x]))[:x.shape[0]]


def at_least(f, x):
    """A capacity, of which Python takes the larger."""
    return f(x) * max(int(1.25 * x.shape[0] / E), 4)


def between(f, x):
    return f(x) * float(min(x.shape[0], 20, 2 * x.shape[0] - 1))


@pytest.mark.parametrize("decide", [shortcut, at_least, between], ids=lambda f: f.__name__)
def test_what_does_not(decide):
    torch.manual_seed(0)
    block = Block(decide).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        imported = moe.from_torch(block)
    assert imported.mlir.count("moe.dispatch") == 1
    check(block, imported)
    assert not {"max", "min", "int", "float"} & globals().keys()  # as before


class Inside(nn.Module):
    """The module of the experts decides, or one of them by the number of its rows."""

    def __init__(self, decide):
        super().__init__()
        self.members, self.decide = nn.ModuleList(Expert() for _ in range(E)), decide

    def forward(self, x, ids, weights):
        return self.decide(self.loop, x, ids, weights)

    def loop(self, x, ids, weights, limit=None):
        y = torch.zeros_like(x)
        for e, expert in enumerate(self.members):
            token, choice = torch.where(ids == e)
            if token.shape[0] == 0:
                continue
            part = expert(x[token])
            if limit is not None and part.shape[0] > limit:
                part = -part
            y.index_add_(0, token, part * weights[token, choice, None])
        return y


class Around(Block):
    def __init__(self, decide):
        super().__init__(None)
        self.experts = Inside(decide)

    def forward(self, x):
        weights, ids = self.gate(x).softmax(-1).topk(2, -1)
        return self.experts(x, ids, weights)


@pytest.mark.parametrize("decide, same", [
    (lambda f, x, *a: f(2 * x if x.shape[0] <= 4 else x, *a), False),
    (lambda f, x, *a: f(2 * x if x.shape[0] * 2 // 3 == 20 else x, *a), False),
    (lambda f, x, *a: f(x, *a, limit=40), False),
    (lambda f, x, *a: f(x, *a, limit=9000), False),
    (lambda f, x, *a: f(2 * x if 70 <= len(x) else x + x, *a), True)])
def test_experts_that_decide(decide, same):
    torch.manual_seed(0)
    block = Around(decide).eval()
    with warnings.catch_warnings(record=True) as messages:
        warnings.simplefilter("always")
        imported = moe.from_torch(block)
    assert (imported.reason is None) == same
    assert any("runs in Python" in str(m.message) for m in messages) != same
    check(block, imported)


def test_random_numbers_of_python():
    block = Block(lambda f, x: f(x) * random.random()).eval()
    with pytest.warns(UserWarning, match="runs in Python: .*as 1 row shows"):
        moe.from_torch(block)


# -- capacities ---------------------------------------------------------------


def first_choice(gates, least):
    """As Switch and fairseq: what an expert takes grows with the number of tokens."""
    capacity = max(int(gates.shape[0] / gates.shape[1]), least)
    mask = nn.functional.one_hot(gates.argmax(1), gates.shape[1])
    place = torch.cumsum(mask, 0) - 1
    mask = mask * (place < capacity)
    slot = nn.functional.one_hot((place * mask).sum(1), capacity).float()
    return torch.einsum("te,tc->tec", gates * mask, slot)


def marked_places(gates, least):
    """What does not fit has no mark."""
    capacity = max(int(gates.shape[0] / gates.shape[1]), least)
    mask = nn.functional.one_hot(gates.argmax(1), gates.shape[1])
    place = ((torch.cumsum(mask, 0) - 1) * mask).sum(1)
    slot = (place.unsqueeze(-1) == torch.arange(capacity)).float()
    return torch.einsum("te,tc->tec", gates * mask, slot)


def two_choices(gates, least, next_of=lambda capacity: capacity):
    """GShard's and DeepSpeed's: all first choices come before all second ones."""
    capacity = max(math.ceil(2 * gates.shape[0] / gates.shape[1]), least)
    masks, places, taken, left = [], [], 0, gates
    for _ in range(2):
        mask = nn.functional.one_hot(left.argmax(1), gates.shape[1])
        places.append(torch.cumsum(mask, 0) - 1 + taken)
        taken, left = taken + mask.sum(0, keepdim=True), left.masked_fill(mask.bool(), -1.0)
        masks.append(mask * (places[-1] < next_of(capacity)))
    weights = [(gates * m).sum(1) for m in masks]
    total = (weights[0] + weights[1]).clamp(min=1e-6)
    return sum(torch.einsum("t,te,tc->tec", w / total, m.float(), nn.functional.one_hot(
        (p * m).sum(1), capacity).float()) for w, m, p in zip(weights, masks, places))


def fewer_places(gates, least):
    """A place that there is stays empty."""
    return two_choices(gates, least, lambda capacity: capacity - 1)


class Capacity(nn.Module):
    """Experts that take so many tokens: at least ``least``, more where there are more."""

    def __init__(self, combine, least):
        super().__init__()
        draw = torch.Generator().manual_seed(5)
        self.gate, self.up, self.down = (nn.Parameter(torch.randn(shape, generator=draw) / 4)
                                         for shape in ((H, E), (E, H, I), (E, I, H)))
        self.combine, self.least = combine, least

    def forward(self, x):
        combine = self.combine((x @ self.gate).softmax(-1), self.least)
        rows = torch.einsum("tec,th->ech", combine.bool().to(x.dtype), x)
        y = torch.einsum("eci,eih->ech", torch.relu(
            torch.einsum("ech,ehi->eci", rows, self.up)), self.down)
        return torch.einsum("tec,ech->th", combine, y)


@pytest.mark.filterwarnings("ignore:.*a router is left to loops")
@pytest.mark.parametrize("combine", [first_choice, marked_places, two_choices, fewer_places])
@pytest.mark.parametrize("least", [4, 0])
def test_a_least_capacity(combine, least):
    """One dispatch, and no tensor that grows with the square of the number of tokens."""
    block = Capacity(combine, least).eval()
    imported = moe.from_torch(block, example=torch.zeros(4, H))
    assert imported.mlir.count("moe.dispatch") == 1
    assert not re.search(r"tensor<\?x(\d+x)?\?x", imported.mlir)
    layer = imported.layer()
    for tokens in (1, 5, 13, 100):
        x = torch.randn(tokens, H, generator=torch.Generator().manual_seed(tokens))
        x[tokens // 3:] = x[tokens // 3:] * 0.1 + 1  # most of them at the same experts
        with torch.no_grad():
            try:
                expected = block(x)
            except RuntimeError:  # no place at all
                assert least == 0 and tokens < E
                continue
            assert data.relative_error(layer(x).numpy(), expected.numpy()) < F32


# -- batches ------------------------------------------------------------------


def centered(f, x):
    """Each sequence by itself."""
    x = x - x.mean(-2, keepdim=True)
    return f(x.reshape(-1, H)).reshape(x.shape)


def compared(f, x):
    """Each sequence with the others."""
    return f((x - 0.5 * x.mean(0, keepdim=True)).reshape(-1, H)).reshape(x.shape)


def flat(f, x):
    return f(x.reshape(-1, H)).reshape(x.shape)


def over_rows(f, x):
    """Another thing with a batch: the softmax is over its sequences."""
    return f((x * x.softmax(0)).reshape(-1, H)).reshape(x.shape)


@pytest.mark.parametrize("decide, calls", [(flat, 1), (centered, 3)])
def test_sequences_of_a_batch(decide, calls, monkeypatch):
    from moe.integrations._layers import module as _module

    block, x = Block(decide).eval(), torch.randn(3, 9, H)
    compiled, counted, run = moe.from_torch(block).module(), [], _module.run_layer
    monkeypatch.setattr(_module, "run_layer", lambda *a: counted.append(1) or run(*a))
    with torch.no_grad():
        for rows in (x, x[:1]):
            assert data.relative_error(compiled(rows).numpy(), block(rows).numpy()) < F32
    assert len(counted) == calls + 1


@pytest.mark.parametrize("decide", [compared, over_rows])
def test_batches_that_are_something_else(decide):
    block = Block(decide).eval()
    compiled = moe.from_torch(block).module()
    with torch.no_grad(), pytest.raises(moe.MoEError, match="expected one sequence"):
        compiled(torch.randn(3, 9, H))
