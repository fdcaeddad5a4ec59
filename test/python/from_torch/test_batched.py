"""Experts that are computed for each choice by gathered weights, or for every token: one dispatch
where that is what they are, and right in any case."""

from __future__ import annotations

import math
import warnings

import pytest

import moe

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from moe_testing import data  # noqa: E402
from moe_testing.models.exported import export  # noqa: E402
from moe_testing.models.hf import H  # noqa: E402

pytestmark = pytest.mark.usefixtures("compiled")

F32 = 2e-6
E, I, K = 8, 24, 2
einsum, silu, one_hot = torch.einsum, torch.nn.functional.silu, torch.nn.functional.one_hot


class Block(torch.nn.Module):
    """A block whose experts ``combine`` computes of rows, weights and ids."""

    def __init__(self, combine, inner=I, score=torch.softmax):
        super().__init__()
        draw = torch.Generator().manual_seed(7)

        def weight(*shape):
            return torch.nn.Parameter(torch.randn(shape, generator=draw) / shape[-1] ** 0.5)

        self.router, self.w1, self.w3 = weight(E, H), weight(E, inner, H), weight(E, inner, H)
        self.w2, self.bias = weight(E, H, inner), weight(E, inner)
        self.combine, self.score = combine, score

    def forward(self, x):
        weights, ids = self.score(x @ self.router.T, -1).topk(K)
        return self.combine(self, x, weights, ids)


def run(block, dispatches, record=lambda *_: None):
    block.eval()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*has nothing that is known as experts")
        imported = moe.from_torch(export(block))
        layer = imported.layer()
    assert imported.mlir.count("moe.dispatch") == dispatches
    for tokens in (33, 1):
        x = torch.randn(tokens, H, generator=torch.Generator().manual_seed(3))
        with torch.no_grad():
            error = data.relative_error(layer(x).numpy(), block(x).numpy())
        record(block.combine.__name__, error)
        assert error < F32
    return imported.mlir


def gathered(m, x, w, ids):
    """With einsum, as gpt-fast has it."""
    h = silu(einsum("ti,taoi->tao", x, m.w1[ids])) * einsum("ti,taoi->tao", x, m.w3[ids])
    return einsum("tai,ta->ti", einsum("tao,taio->tai", h, m.w2[ids]), w)


def flat(m, x, w, ids):
    """With a product for each choice, and a bias."""
    rows, at = x.repeat_interleave(K, 0), ids.flatten()
    h = torch.relu(torch.bmm(rows.unsqueeze(1), m.w1[at].transpose(1, 2)).squeeze(1) + m.bias[at])
    y = (m.w2[at] @ h.unsqueeze(-1)).squeeze(-1)
    return (y * w.flatten()[:, None]).view(-1, K, H).sum(1)


def matrix_of(w, ids):
    return torch.zeros(w.shape[0], E).scatter(1, ids, w)


def every(m, x, w, ids):
    """Every expert for every token, weighted by a matrix."""
    h = torch.nn.functional.gelu(einsum("th,eih->tei", x, m.w1))
    return einsum("teh,te->th", einsum("tei,ehi->teh", h, m.w2), matrix_of(w, ids))


def every_of_mask(m, x, w, ids):
    mask = (one_hot(ids, E).float() * w.unsqueeze(-1)).sum(1)
    h = silu(torch.bmm(x.expand(E, -1, -1), m.w1.transpose(1, 2)) + m.bias.unsqueeze(1))
    return (torch.bmm(h, m.w2.transpose(1, 2)) * mask.t().unsqueeze(-1)).sum(0)


def every_with_all_weights(m, x, w, ids):
    """No expert is left out: K = E."""
    h = silu(einsum("th,eih->eti", x, m.w1))
    return einsum("eth,te->th", einsum("eti,ehi->eth", h, m.w2), (x @ m.router.T).sigmoid())


def halves(m, x, w, ids):
    """Gate and up in one product."""
    gate, up = einsum("ti,taoi->tao", x, m.w1[ids]).chunk(2, -1)
    return einsum("taj,tahj,ta->th", silu(gate) * up, m.w2[ids][..., :I // 2], w)


def every_of_best(m, x, w, ids):
    """The weights are the softmax of a matrix that has the best logits alone."""
    logits = x @ m.router.T
    values, at = logits.topk(K)
    matrix = torch.full_like(logits, -torch.inf).scatter(-1, at, values).softmax(-1)
    return einsum("teh,te->th", einsum("tei,ehi->teh", silu(einsum("th,eih->tei", x, m.w1)), m.w2),
                  matrix)


def scored_rows(m, x, fill=-torch.inf):
    """The rows of all experts, multiplied by the scores of the choices; these scores."""
    logits = x @ m.router.T
    values, at = logits.topk(K)
    scores = torch.full_like(logits, fill).scatter_(1, at, values).sigmoid().T
    return (x.repeat(E, 1) * scores.reshape(-1, 1)).view(E, -1, H), scores


def scaled_rows(m, x, w, ids, fill=-torch.inf):
    """As Llama 4."""
    rows, _ = scored_rows(m, x, fill)
    h = silu(torch.bmm(rows, m.w1.transpose(1, 2))) * torch.bmm(rows, m.w3.transpose(1, 2))
    return torch.bmm(h, m.w2.transpose(1, 2)).sum(0)


def of_a_batch(m, x, w, ids):
    """Choices ``[1, T, K]``, and columns that matrices are multiplied by, as in ONNX graphs."""
    x = x.unsqueeze(0)
    w, ids = (x @ m.router.T).topk(K)
    w = w.softmax(-1)
    h = m.w1[ids] @ x.unsqueeze(2).expand(-1, -1, K, -1).unsqueeze(-1) + m.bias[ids].unsqueeze(-1)
    y = m.w2[ids] @ torch.relu(h)
    return (y * w.unsqueeze(-1).unsqueeze(-1)).sum(2).squeeze(-1).squeeze(0)


def two_maxima(m, x, w, ids):
    """Each choice by itself; for some tokens they are the same expert."""
    logits = x @ m.router.T
    ids = torch.cat([logits.argmax(-1, keepdim=True), (logits * logits).argmax(-1, True)], -1)
    w = logits.softmax(-1).gather(-1, ids)
    return gathered(m, x, w, ids)


FORMS = [gathered, flat, every, every_of_mask, every_with_all_weights, every_of_best, scaled_rows,
         of_a_batch, two_maxima]


@pytest.mark.filterwarnings("ignore:.*a router is left to loops")
@pytest.mark.parametrize("combine", FORMS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("inner", [I, H])
def test_forms(combine, inner, record):
    """Also with square matrices."""
    text = run(Block(combine, inner), 1, record)
    assert "batch_matmul" not in text


def other_layout(m, x, w, ids):
    """The matrices are used as [in, out]: with square ones nothing else differs."""
    h = silu(einsum("ti,taio->tao", x, m.w1[ids]))
    return einsum("tai,ta->ti", einsum("tao,taoi->tai", h, m.w2[ids]), w)


def test_square_matrices_in_the_other_layout():
    run(Block(other_layout, H), 1)


def next_expert(m, x, w, ids):
    """Of the second matrix of the next expert."""
    h = silu(einsum("ti,taoi->tao", x, m.w1[ids]))
    return einsum("tai,ta->ti", einsum("tao,taio->tai", h, m.w2[(ids + 1) % E]), w)


def from_the_end(m, x, w, ids):
    at = ids - E
    h = silu(einsum("ti,taoi->tao", x, m.w1[at]))
    return einsum("tai,ta->ti", einsum("tao,taio->tai", h, m.w2[at]), w)


def swapped_choices(m, x, w, ids):
    """The weights of the other choice."""
    h = silu(einsum("ti,taoi->tao", x, m.w1[ids]))
    return einsum("tai,ta->ti", einsum("tao,taio->tai", h, m.w2[ids]), w.flip(-1))


def other_order(m, x, w, ids):
    """Rows repeated as a whole, where the choices are token by token."""
    rows, at = x.repeat(K, 1), ids.flatten()
    h = torch.relu((m.w1[at] @ rows.unsqueeze(-1)).squeeze(-1))
    y = (m.w2[at] @ h.unsqueeze(-1)).squeeze(-1)
    return (y * w.flatten()[:, None]).view(-1, K, H).sum(1)


def mixed_choices(m, x, w, ids):
    """Both choices of a token are added up between the products: the second alone is experts'."""
    h = silu(einsum("ti,taoi->to", x, m.w1[ids]))
    return einsum("tai,ta->ti", einsum("to,taio->tai", h, m.w2[ids]), w)


def after_the_weights(m, x, w, ids):
    h = silu(einsum("ti,taoi->tao", x, m.w1[ids]))
    return torch.tanh(einsum("tao,taio->tai", h, m.w2[ids]) * w.unsqueeze(-1)).sum(1)


def weights_in_the_middle(m, x, w, ids):
    h = silu(einsum("ti,taoi->tao", x, m.w1[ids]) * w.unsqueeze(-1))
    return einsum("tao,taio->ti", h, m.w2[ids])


def over_the_columns(m, x, w, ids):
    """A softmax over all columns of an expert."""
    h = einsum("ti,taoi->tao", x, m.w1[ids]).softmax(-1)
    return einsum("tai,ta->ti", einsum("tao,taio->tai", h, m.w2[ids]), w)


def other_mask(m, x, w, ids):
    """Weights at the places of other experts."""
    return every(m, x, w, (ids + 1) % E)


def mask_of_ones(m, x, w, ids):
    h = silu(einsum("th,eih->tei", x, m.w1))
    matrix = torch.ones(x.shape[0], E).scatter(1, ids, w)
    return einsum("teh,te->th", einsum("tei,ehi->teh", h, m.w2), matrix)


def other_experts(m, x, w, ids):
    """The experts of the second product are in another order."""
    h = silu(einsum("th,eih->tei", x, m.w1))
    y = einsum("tei,ehi->teh", h, m.w2.flip(0))
    return einsum("teh,te->th", y, matrix_of(w, ids))


def choices_as_experts(m, x, w, ids):
    """The first K experts, weighted by what belongs to choices."""
    h = silu(einsum("th,eih->tei", x, m.w1[:K]))
    return einsum("teh,te->th", einsum("tei,ehi->teh", h, m.w2[:K]), w)


def with_capacity(m, x, w, ids, capacity=4, wraps=False):
    """Masks of GShard: a place in the buffer of an expert, or none."""
    mask = one_hot(ids, E)
    place = mask.flatten(0, 1).cumsum(0).view_as(mask) - 1
    if wraps:
        place = place % capacity
    kept = (mask * (place < capacity)).float()
    slot = one_hot((place * mask).sum(-1).clamp(max=capacity - 1), capacity).float()
    dispatch, combine = einsum("tke,tkc->tec", kept, slot), einsum("tke,tkc,tk->tec", kept, slot, w)
    h = silu(einsum("ech,eih->eci", einsum("tec,th->ech", dispatch, x), m.w1))
    return einsum("tec,ech->th", combine, einsum("eci,ehi->ech", h, m.w2))


def shared_places(m, x, w, ids):
    """Tokens share places, and get the sum of what is there."""
    return with_capacity(m, x, w, ids, wraps=True)


def two_argmax(m, x, w, ids, capacity=6):
    """GShard's own gate: all first choices come before all second ones."""
    p = (x @ m.router.T).softmax(-1)
    first = one_hot(p.argmax(-1), E)
    second = one_hot(p.masked_fill(first.bool(), -1.0).argmax(-1), E)
    places = first.cumsum(0) - 1, second.cumsum(0) - 1 + first.sum(0, keepdim=True)
    combine = 0
    for mask, place in zip((first, second), places):
        mask = mask * (place < capacity)
        slot = one_hot((place * mask).sum(1), capacity).float()
        combine = combine + einsum("te,tc->tec", (p * mask).sum(1)[:, None] * mask, slot)
    h = silu(einsum("ech,eih->eci", einsum("tec,th->ech", combine.bool().float(), x), m.w1))
    return einsum("tec,ech->th", combine, einsum("eci,ehi->ech", h, m.w2))


def masked_rows(m, x, w, ids):
    """As Mesh-TensorFlow without a capacity: rows of every expert, 0 for other tokens."""
    mask = one_hot(ids, E).float().sum(1)
    h = torch.relu(einsum("teh,eih->tei", mask[..., None] * x[:, None], m.w1))
    return einsum("teh,te->th", einsum("tei,ehi->teh", h, m.w2), mask * (x @ m.router.T))


def masked_bias(m, x, w, ids):
    """What the experts make of rows of zeros counts, too."""
    mask = one_hot(ids, E).float().sum(1)
    h = torch.sigmoid(einsum("teh,eih->tei", mask[..., None] * x[:, None], m.w1))
    return einsum("teh,te->th", einsum("tei,ehi->teh", h, m.w2), x @ m.router.T)


def scaled_by_halves(m, x, w, ids):
    """An expert that is not chosen has a score of 1/2."""
    return scaled_rows(m, x, w, ids, fill=0.0)


def scaled_sigmoid(m, x, w, ids):
    """What the experts make of rows of zeros counts, too."""
    rows, _ = scored_rows(m, x)
    h = torch.bmm(rows, m.w1.transpose(1, 2)).sigmoid()
    return torch.bmm(h, m.w2.transpose(1, 2)).sum(0)


def scaled_bias(m, x, w, ids):
    rows, _ = scored_rows(m, x)
    h = torch.relu(torch.bmm(rows, m.w1.transpose(1, 2)) + m.bias.unsqueeze(1))
    return torch.bmm(h, m.w2.transpose(1, 2)).sum(0)


def scaled_twice(m, x, w, ids):
    """The scores weigh the results, too."""
    rows, scores = scored_rows(m, x)
    y = torch.bmm(torch.relu(torch.bmm(rows, m.w1.transpose(1, 2))), m.w2.transpose(1, 2))
    return (y * scores.unsqueeze(-1)).sum(0)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("combine", [with_capacity, two_argmax, masked_rows],
                         ids=lambda f: f.__name__)
def test_masks(combine):
    """Masks that dispatch and combine, also where an expert is full."""
    run(Block(combine), 1)


@pytest.mark.parametrize("combine, dispatches", [
    (next_expert, 0), (from_the_end, 1), (swapped_choices, 1), (other_order, 0), (mixed_choices, 1),
    (after_the_weights, 0), (weights_in_the_middle, 0), (over_the_columns, 1), (other_mask, 1),
    (mask_of_ones, 1), (other_experts, 0), (choices_as_experts, 0), (halves, 0),
    (shared_places, 0), (masked_bias, 0), (scaled_by_halves, 0), (scaled_sigmoid, 0),
    (scaled_bias, 0), (scaled_twice, 0)], ids=lambda v: getattr(v, "__name__", None))
@pytest.mark.parametrize("inner", [I, H])
def test_near_misses(combine, dispatches, inner):
    """What looks alike: whatever is recognised, the result is that of the block."""
    if combine is halves and inner == H:
        pytest.skip("sizes of its own")
    run(Block(combine, inner), dispatches)


class Modules(torch.nn.Module):
    """Experts that are modules each, and a shared one; ``combine`` as of a Block."""

    def __init__(self, combine):
        super().__init__()
        torch.manual_seed(0)
        self.router, self.combine = torch.nn.Linear(H, 4), combine
        self.experts = torch.nn.ModuleList(torch.nn.Sequential(
            torch.nn.Linear(H, I), torch.nn.GELU(), torch.nn.Linear(I, H)) for _ in range(5))

    def forward(self, x):
        weights, ids = self.router(x).softmax(-1).topk(K)
        return self.combine(self, x, weights, ids)


def stacked(m, x, w, ids):
    """All results, of which those of the choices are gathered."""
    y = torch.stack([e(x) for e in m.experts[:4]], dim=1)
    return (y.gather(1, ids[..., None].expand(-1, -1, H)) * w[..., None]).sum(1)


def stacked_by_matrix(m, x, w, ids):
    y = torch.stack([e(x) for e in m.experts[:4]])
    return einsum("eth,te->th", y, torch.zeros(x.shape[0], 4).scatter(1, ids, w))


def added(m, x, w, ids, inputs=lambda x, i: x, number=lambda i: i):
    """Masks of the choices, beside a shared expert and the rows."""
    y = m.experts[4](x)
    for i, expert in enumerate(m.experts[:4]):
        own = torch.where(ids == number(i), w, torch.zeros_like(w)).sum(-1, keepdim=True)
        y = y + own * expert(inputs(x, i))
    return x + y


def added_columns(m, x, w, ids):
    matrix = torch.zeros(x.shape[0], 4).scatter(1, ids, w)
    return sum(e(x) * matrix[:, i, None] for i, e in enumerate(m.experts[:4]))


def other_rows(m, x, w, ids):
    """An expert has other rows."""
    return added(m, x, w, ids, inputs=lambda x, i: x if i else 2 * x)


def one_twice(m, x, w, ids):
    """The first expert's weights for two of them, and nobody has the last one's."""
    return added(m, x, w, ids, number=lambda i: max(i - 1, 0))


def other_function(m, x, w, ids):
    y = [e(x) for e in m.experts[:3]] + [m.experts[3](x).tanh()]
    return (torch.stack(y, 1).gather(1, ids[..., None].expand(-1, -1, H)) * w[..., None]).sum(1)


@pytest.mark.parametrize("combine, dispatches", [
    (stacked, 1), (stacked_by_matrix, 1), (added, 1), (added_columns, 1), (other_rows, 0),
    (one_twice, 0), (other_function, 0)], ids=lambda v: getattr(v, "__name__", None))
def test_modules(combine, dispatches):
    run(Modules(combine), dispatches)


def by_number_of_tokens(m, x, w, ids, shared=False):
    """nanoMoE: a capacity that Python computes of the number of tokens, marks of the places that
    are used, and a product for each expert."""
    capacity = max(math.floor(K * 0.8 * x.shape[0] / E) + 1, 4)
    capacity += capacity % 2
    mask = one_hot(ids, E).permute(1, 0, 2)
    place = (mask.reshape(-1, E).cumsum(0) - 1).view(K, -1, E)
    mask = mask * (place < capacity)
    place = (mask * (place // 2 if shared else place)).sum(-1)
    scores = torch.zeros(x.shape[0], E).scatter(1, ids, w)
    combine = ((mask * scores).unsqueeze(3) * one_hot(place, capacity).unsqueeze(2)).sum(0)
    rows = combine.bool().permute(1, 2, 0).type_as(x) @ x
    h = silu(torch.bmm(rows, m.w1.transpose(1, 2)) + m.bias.view(E, 1, -1))
    return combine.view(x.shape[0], -1) @ torch.bmm(h, m.w2.transpose(1, 2)).view(-1, H)


def shared_by_number_of_tokens(m, x, w, ids):
    """Two tokens share a place."""
    return by_number_of_tokens(m, x, w, ids, shared=True)


@pytest.mark.parametrize("combine, dispatches", [
    (by_number_of_tokens, 1), (shared_by_number_of_tokens, 0)],
    ids=lambda v: getattr(v, "__name__", None))
def test_capacity_of_the_number_of_tokens(combine, dispatches):
    block = Block(combine).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        imported = moe.from_torch(block)
        layer = imported.layer()  # in Python, where masks are squares of the number of tokens
    assert imported.mlir.count("moe.dispatch") == dispatches
    for tokens in (33, 8, 1):
        x = torch.randn(tokens, H, generator=torch.Generator().manual_seed(3))
        with torch.no_grad():
            assert data.relative_error(layer(x).numpy(), block(x).numpy()) < F32


def test_a_bias_of_zeros():
    """It may become another one, which every expert adds for every token."""
    block = Block(scaled_bias)
    torch.nn.init.zeros_(block.bias)
    run(block, 0)


def test_a_warning_says_what_stays():
    with pytest.warns(UserWarning, match="has nothing that is known as experts"):
        moe.from_torch(Block(shared_places).eval(), example=torch.zeros(4, H))
