"""Blocks as people write them who have never seen this project."""

from __future__ import annotations

import moe
import pytest

torch = pytest.importorskip("torch")

from moe_testing import data  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

pytestmark = pytest.mark.usefixtures("compiled")

H, I, E, K = 32, 24, 8, 2


def parameter(*shape):
    return nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))
                        / shape[-2] ** 0.5)


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.w1, self.w3, self.w2 = nn.Linear(H, I), nn.Linear(H, I), nn.Linear(I, H)

    def forward(self, x):
        return self.w2(functional.silu(self.w1(x)) * self.w3(x))


class Where(nn.Module):
    """As in mistral-inference: rows [T, H] alone, weights are the softmax of the best logits."""

    def __init__(self):
        super().__init__()
        self.experts, self.gate = nn.ModuleList(MLP() for _ in range(E)), nn.Linear(H, E)

    def forward(self, x):
        weights, ids = torch.topk(self.gate(x), K)
        weights = functional.softmax(weights, dim=1, dtype=torch.float).to(x.dtype)
        result = torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            rows, nth = torch.where(ids == i)
            result[rows] += weights[rows, nth, None] * expert(x[rows])
        return result


class OneHot(nn.Module):
    """As in Mesh TensorFlow, without a capacity; its first matrix is [H, E]."""

    def __init__(self):
        super().__init__()
        self.router, self.wi, self.wo = parameter(H, E), parameter(E, H, I), parameter(E, I, H)

    def forward(self, x):
        weight, index = torch.softmax(x @ self.router, -1).max(-1)
        mask = functional.one_hot(index, E).to(x.dtype)
        h = torch.einsum("te,th->eth", mask, x)
        h = torch.relu(torch.einsum("eth,ehi->eti", h, self.wi))
        h = torch.einsum("eti,eih->eth", h, self.wo)
        return torch.einsum("eth,te->th", h, mask * weight[:, None])


class Dense(nn.Module):
    """Every expert on every row; weights of 0 for those that were not chosen."""

    def __init__(self):
        super().__init__()
        self.gate, self.wi, self.wo = nn.Linear(H, E), parameter(E, H, 2 * I), parameter(E, I, H)

    def forward(self, x):
        logits = self.gate(x)
        best, ids = torch.topk(logits, K)
        weights = torch.zeros_like(logits).scatter(1, ids, torch.sigmoid(best))
        a, b = torch.einsum("th,ehi->eti", x, self.wi).chunk(2, -1)
        y = torch.einsum("eti,eih->eth", functional.gelu(a) * b, self.wo)
        return (y * weights.t()[..., None]).sum(0)


class Gathered(nn.Module):
    """As in gpt-fast: the weights of the experts of each row."""

    def __init__(self):
        super().__init__()
        self.gate, self.w1, self.w2 = nn.Linear(H, E), parameter(E, 2 * I, H), parameter(E, H, I)

    def forward(self, x):
        weights, ids = torch.topk(self.gate(x).softmax(-1), K)
        a, b = torch.einsum("tkih,th->tki", self.w1[ids], x).chunk(2, -1)
        return torch.einsum("tkhi,tki,tk->th", self.w2[ids], functional.silu(a) * b, weights)


class Soft(nn.Module):
    """Soft MoE (arXiv:2308.00951): slots are mixtures of all rows."""

    def __init__(self):
        super().__init__()
        self.phi, self.w = parameter(H, E), parameter(E, H, H)

    def forward(self, x):
        logits = x @ self.phi
        slots = torch.einsum("eh,ehd->ed", logits.softmax(0).t() @ x, self.w)
        return logits.softmax(1) @ slots


class Switch(nn.Module):
    """The best expert, with a capacity that has a least number; a dropped row stays. ``limit``
    spoils what is kept, ``base`` what rows without an expert are."""

    def __init__(self, limit=lambda keep, e: keep, base=lambda x: x.clone()):
        super().__init__()
        self.router, self.limit, self.base = nn.Linear(H, E, bias=False), limit, base
        self.experts = nn.ModuleList(MLP() for _ in range(E))

    def forward(self, x):
        p, idx = self.router(x).softmax(-1).max(-1)
        capacity = max(int(1.25 * x.shape[0] / E), 2)
        mask = functional.one_hot(idx, E)
        keep = (mask.cumsum(0) * mask).sum(-1) <= capacity
        out = self.base(x)
        for e, expert in enumerate(self.experts):
            selected = ((idx == e) & self.limit(keep, e)).nonzero(as_tuple=True)[0]
            out[selected] = expert(x[selected])
        return out * (p / p.detach() * p).unsqueeze(-1)


class Limited(Switch):
    """Two choices, of which some are kept; those of a row are added."""

    def forward(self, x):
        w, ids = self.router(x).softmax(-1).topk(K, -1)
        keep, out = self.limit(w > 0.2, None), self.base(x)
        for e, expert in enumerate(self.experts):
            token, choice = torch.where((ids == e).logical_and(keep))
            out.index_add_(0, token, expert(x[token]) * w[token, choice, None])
        return out


class Nucleus(nn.Module):
    """Experts until their probability is enough, of all in order."""

    def __init__(self):
        super().__init__()
        self.gate, self.experts = nn.Linear(H, E), nn.ModuleList(MLP() for _ in range(E))

    def forward(self, x):
        p, ids = self.gate(x).softmax(-1).sort(-1, descending=True)
        w = torch.where(p.cumsum(-1) - p < 0.6, p, 0.0)
        w = torch.zeros_like(w).scatter(-1, ids, w / w.sum(-1, keepdim=True))
        y = torch.zeros_like(x)
        for e, expert in enumerate(self.experts):
            token = w[:, e].nonzero(as_tuple=True)[0]
            y[token] += expert(x[token]) * w[token, e, None]
        return y


class Points(nn.Module):
    """Elements at two indices, one of which may be below 0."""

    def __init__(self):
        super().__init__()
        self.gate, self.table = nn.Linear(H, E), parameter(E, 4, H)

    def forward(self, x):
        p, ids = self.gate(x).max(-1)
        best = self.gate(x)[torch.arange(x.shape[0]), ids - E]
        return x * (p + best)[:, None] + self.table[ids, (ids % 4) - 4]


class KeptAlways(Switch):
    def __init__(self):
        super().__init__(base=torch.zeros_like)


class PairOfChoices(Limited):
    def __init__(self):
        super().__init__(base=torch.zeros_like)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("block, operation", [
    (Where, "moe.dispatch"), (OneHot, "moe.gate"), (Dense, "moe.dispatch"),
    (Gathered, "moe.dispatch"), (Soft, "linalg."), (Switch, "moe.dispatch"),
    (KeptAlways, "moe.dispatch"), (PairOfChoices, "moe.dispatch"), (Nucleus, "moe.dispatch"),
    (Points, "tensor.extract")])
def test_blocks_of_rows(record, block, operation):
    """They take [T, H] alone, and the columns are not those of the first matrix."""
    torch.manual_seed(0)
    module = block().eval()
    imported = moe.from_torch(module)
    assert operation in imported.mlir
    layer = imported.layer()
    for tokens in (1, 2, 33):
        x = torch.randn(tokens, H)
        with torch.no_grad():
            expected = module(x)
        error = data.relative_error(layer(x), expected.numpy())
        record(f"{block.__name__} {tokens}", error)
        assert error < 2e-6


def test_blocks_of_rows_in_a_model():
    from moe.integrations.torch import replace

    model, x = nn.ModuleDict({"block": Where().eval()}), torch.randn(9, H)
    with torch.no_grad():
        expected = model["block"](x)
        assert replace(model) == ["block"]
        assert data.relative_error(model["block"](x).numpy(), expected.numpy()) < 2e-6


class Padded(nn.Module):
    """Sequences of a batch, by three indices; a mask leaves out padding."""

    def __init__(self):
        super().__init__()
        self.experts, self.gate = nn.ModuleList(MLP() for _ in range(E)), nn.Linear(H, E)

    def forward(self, x, mask=None):
        weights, ids = self.gate(x).softmax(-1).topk(K, -1)
        if mask is not None:
            weights = weights * mask.unsqueeze(-1)
        y = torch.zeros_like(x)
        for e, expert in enumerate(self.experts):
            b, t, k = torch.where(ids == e)
            y[b, t] += expert(x[b, t]) * weights[b, t, k, None]
        return y


def test_sequences_with_a_mask():
    from moe.integrations.torch import replace

    torch.manual_seed(0)
    block, x = Padded().eval(), torch.randn(2, 9, H)
    assert moe.from_torch(block).mlir.count("moe.dispatch") == 1
    model, mask = nn.ModuleDict({"block": block}), torch.arange(18).view(2, 9) % 2
    with torch.no_grad():
        assert replace(model) == ["block"]
        assert data.relative_error(model["block"](x).numpy(), block(x).numpy()) < 2e-6
        with pytest.warns(UserWarning, match="was also given mask: Padded runs in Python"):
            assert torch.equal(model["block"](x, mask=mask), block(x, mask))


def other_limit(keep, e):
    """Another one for each expert."""
    return keep & (keep.cumsum(0) > e)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("block", [
    lambda: Switch(other_limit), lambda: Switch(lambda keep, e: keep if e else ~keep),
    lambda: Limited(base=torch.zeros_like, limit=lambda keep, _: keep[:, :1]),
    lambda: Limited(base=torch.clone), lambda: Switch(base=lambda x: x.flip(1) + 1)])
def test_near_misses_of_limits(block):
    """Whatever is recognised, the result is the module's."""
    torch.manual_seed(0)
    module = block().eval()
    layer = moe.from_torch(module).layer()
    for tokens in (1, 33):
        x = torch.randn(tokens, H)
        with torch.no_grad():
            expected = module(x)
        assert data.relative_error(torch.as_tensor(layer(x)), expected.numpy()) < 2e-6


class Inference(nn.Module):
    """As in DeepSeek-V2's own inference code: slices by counts that Python reads."""

    def __init__(self):
        super().__init__()
        self.gate, self.experts = nn.Linear(H, E), nn.ModuleList(MLP() for _ in range(E))

    def forward(self, x):
        weights, ids = torch.topk(self.gate(x).softmax(-1), K)
        order = ids.view(-1).argsort()
        counts = torch.bincount(ids.view(-1), minlength=E).cpu().numpy()
        rows, outputs, start = x[order // K], [], 0
        for expert, count in zip(self.experts, counts):
            outputs.append(expert(rows[start:start + count]))
            start += count
        y = torch.empty_like(rows)
        y[order] = torch.cat(outputs)
        return (y.view(*ids.shape, -1) * weights[..., None]).sum(1)


def test_what_python_reads_from_tensors():
    block, x = Inference().eval(), torch.randn(33, H)
    imported = moe.from_torch(block)
    assert imported.mlir.count("moe.dispatch") == 1
    with torch.no_grad():
        assert data.relative_error(imported.layer()(x).numpy(), block(x).numpy()) < 2e-6


def test_errors_name_what_the_first_shape_meets():
    class Square(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = parameter(H, H)

        def forward(self, x):
            raise ValueError("expected something else")

    with pytest.raises(moe.MoEError, match="Square cannot be exported: expected something else"):
        moe.from_torch(Square().eval())
