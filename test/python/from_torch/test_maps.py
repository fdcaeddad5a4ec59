"""Exported programs that keep their choices as a routing map ``[T, E]``: one dispatch, or right."""

from __future__ import annotations

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


def ones_at(probs, ids):
    return torch.zeros_like(probs).int().scatter(1, ids, 1).bool()


def selected_tokens(routing_map):
    numbers = torch.arange(routing_map.shape[1]).unsqueeze(0).expand(E, -1)
    return numbers.masked_select(routing_map)


class Mapped(torch.nn.Module):
    """The permutation of Megatron-LM. Each step may be replaced, to be another function."""

    def __init__(self, **steps):
        super().__init__()
        draw = torch.Generator().manual_seed(11)

        def weight(*shape):
            return torch.nn.Parameter(torch.randn(shape, generator=draw) / shape[-1] ** 0.5)

        self.router, self.up, self.down = weight(E, H), weight(E, I, H), weight(E, H, I)
        self.steps = steps

    def step(self, name, default, *arguments):
        return self.steps.get(name, default)(*arguments)

    def forward(self, x):
        probs = torch.softmax(x @ self.router.T, -1)
        weights, ids = self.step("choose", lambda probs: probs.topk(K, -1), probs)
        weights = torch.zeros_like(probs).scatter(1, ids, weights)
        routing_map = self.step("map", ones_at, probs, ids)
        ends = routing_map.sum(0).cumsum(0).to(torch.int32)
        by_expert = self.step("transpose", lambda m: m.T.contiguous(), routing_map)
        tokens = self.step("tokens", selected_tokens, by_expert)
        chosen = self.step("weights", lambda w, m: w.T.contiguous().masked_select(m), weights,
                           by_expert)
        grouped = torch.ops.transformers.grouped_mm_fallback
        h = torch.nn.functional.gelu(grouped(x.index_select(0, tokens), self.up.mT, ends))
        y = grouped(h, self.down.mT, ends) * chosen.unsqueeze(-1)
        return torch.zeros_like(x).scatter_add(0, tokens.unsqueeze(1).expand(-1, H), y)


FORMS = {
    "masked_select": {},
    "a map of floats": dict(map=lambda probs, ids: torch.zeros_like(probs).scatter(
        1, ids, 1.0).bool()),
    "repeated numbers": dict(tokens=lambda m: torch.arange(m.shape[1]).repeat(E, 1)
                             .masked_select(m)),
    "numbers that are broadcast": dict(tokens=lambda m: torch.arange(m.shape[1])
                                       .masked_select(m)),
    "transpose": dict(transpose=lambda m: m.transpose(0, 1)),
    "renormalised": dict(choose=lambda probs: (lambda w, i: (w / w.sum(-1, keepdim=True), i))(
        *probs.topk(K, -1))),
}


def compare(block, layer):
    x = torch.randn(33, H, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return data.relative_error(layer(x).numpy(), block(x).numpy())


@pytest.mark.parametrize("form", list(FORMS))
def test_forms(form, record):
    import transformers.integrations.moe  # noqa: F401  (registers the grouped product)

    block = Mapped(**FORMS[form])
    imported = moe.from_torch(export(block))
    assert imported.mlir.count("moe.dispatch") == 1
    record(form, error := compare(block, imported.layer()))
    assert error < F32


NEAR_MISSES = {
    "weights of another order": dict(weights=lambda w, m: w.masked_select(m.T)),
    "tokens of another order": dict(tokens=lambda m: torch.arange(m.shape[1]).unsqueeze(1)
                                    .expand(-1, E).masked_select(m.T)),
    "nothing is transposed": dict(
        transpose=lambda m: m, weights=lambda w, m: w.masked_select(m),
        tokens=lambda m: torch.arange(m.shape[0]).unsqueeze(1).expand(-1, E).masked_select(m)),
    "numbers of experts": dict(tokens=lambda m: torch.arange(E).unsqueeze(1).expand(
        -1, m.shape[1]).masked_select(m)),
    "numbers from 1 on": dict(tokens=lambda m: (torch.arange(1, m.shape[1] + 1) % m.shape[1])
                              .masked_select(m)),
    "scores of all experts": dict(weights=lambda w, m: (w + 0.5).T.masked_select(m)),
    "ids that are the same": dict(choose=lambda probs: (
        probs[:, :K], (probs[:, :K] * 0).to(torch.int64))),
    "another map": dict(map=lambda probs, ids: ones_at(probs, (ids + 1) % E)),
}


@pytest.mark.parametrize("what", list(NEAR_MISSES))
def test_near_misses(what):
    """What looks alike and is another function is an error, or right."""
    import transformers.integrations.moe  # noqa: F401

    block = Mapped(**NEAR_MISSES[what])
    try:
        layer = moe.from_torch(export(block)).layer()
    except moe.MoEError as error:
        assert error.code == moe.UNIMPLEMENTED
        return
    assert compare(block, layer) < F32
