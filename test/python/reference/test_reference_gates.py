"""moe.reference.gate against the routers of transformers, on random, tied and
broken logits, in f32 and in the types that the routers work in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from moe.reference import Groups, Normalize, bfloat16, gate
from moe_testing import data
from moe_testing.oracles import hf

E, K = 16, 4
SUM = Normalize("sum")
SIGMOID = dict(score="sigmoid", normalize=Normalize("sum", epsilon=1e-20))
# family: (attributes, options of the transformers router, takes a bias)
ROUTERS = {
    "mixtral": (dict(normalize=SUM), {}, False),
    "qwen3_moe": (dict(normalize=SUM), {}, False),
    "olmoe": ({}, {}, False),
    "jamba": ({}, {}, False),
    "deepseek_v2": (dict(groups=Groups(4, 2, "max", "zero"), scale=16.0), dict(grouped=True),
                    False),
    "deepseek_v3": (dict(groups=Groups(4, 2, "top2_sum"), scale=2.5, **SIGMOID),
                    dict(groups=4, keep=2), True),
    "glm4_moe": (dict(scale=2.827, **SIGMOID), {}, True),
    "gpt_oss": (dict(order="select_then_score"), {}, False),
    "granitemoe": (dict(order="select_then_score"), {}, False),
}


def both(family, logits, bias=None, **changes):
    """``(weights, ids)`` of the reference and of transformers, sorted by id."""
    attributes, options, _ = ROUTERS[family]
    ours = gate(logits, top_k=K, bias=bias, **{**attributes, **changes})
    router = hf.router(family, E, K, **options)
    theirs = router(torch.from_numpy(logits), None if bias is None else torch.from_numpy(bias))
    theirs = [t.float().numpy() if t.is_floating_point() else t.numpy() for t in theirs]

    def by_id(weights, ids):
        order = np.argsort(ids, axis=1)
        return np.take_along_axis(np.asarray(weights), order, 1), np.sort(ids, axis=1)

    return by_id(*ours), by_id(*theirs)


@pytest.mark.parametrize("family", ROUTERS)
def test_random(family):
    random = data.rng("gates", family)
    logits = random.standard_normal((100, E)).astype(np.float32) * 2
    bias = random.standard_normal(E).astype(np.float32) if ROUTERS[family][2] else None
    (weights, ids), (expected, expected_ids) = both(family, logits, bias)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_allclose(weights, expected, rtol=2e-6)


@pytest.mark.parametrize("family", ROUTERS)
def test_nan_is_minus_infinity(family):
    """A NaN logit routes as -inf does in transformers."""
    random = data.rng("nan", family)
    logits = random.standard_normal((50, E)).astype(np.float32)
    broken = logits.copy()
    holes = random.random(logits.shape) < 0.2
    logits[holes], broken[holes] = -np.inf, np.nan
    bias = np.zeros(E, np.float32) if ROUTERS[family][2] else None
    _, (expected, expected_ids) = both(family, logits, bias)
    attributes = ROUTERS[family][0]
    weights, ids = gate(broken, top_k=K, bias=bias, **attributes)
    order = np.argsort(ids, axis=1)
    # A token whose kept groups hold fewer than K numbers picks among equals.
    full = (np.take_along_axis(weights, order, 1) > 0).all(1) & (expected > 0).all(1)
    assert full.sum() > 20
    np.testing.assert_array_equal(np.sort(ids, 1)[full], expected_ids[full])
    np.testing.assert_allclose(np.take_along_axis(weights, order, 1)[full], expected[full],
                               rtol=2e-6)


@pytest.mark.parametrize("family", ["mixtral", "olmoe", "gpt_oss", "granitemoe"])
def test_infinity_is_the_limit(family):
    """+inf takes all, as a very large finite logit does in transformers."""
    logits = data.rng("inf", family).standard_normal((20, E)).astype(np.float32)
    large = logits.copy()
    logits[np.arange(20), np.arange(20) % E] = np.inf
    large[np.arange(20), np.arange(20) % E] = 1e30
    if family == "mixtral":  # zero weights beside the one: any ids
        attributes = ROUTERS[family][0]
        weights, ids = gate(logits, top_k=K, **attributes)
        np.testing.assert_array_equal(ids[:, 0], np.arange(20) % E)
        np.testing.assert_array_equal(weights, np.eye(1, K, dtype=np.float32).repeat(20, 0))
        return
    _, (expected, expected_ids) = both(family, large)
    weights, ids = gate(logits, top_k=K, **ROUTERS[family][0])
    order = np.argsort(ids, axis=1)
    np.testing.assert_array_equal(np.take_along_axis(weights, order, 1).max(1), expected.max(1))
    np.testing.assert_array_equal(ids[:, 0], np.arange(20) % E)
    if family != "olmoe":
        np.testing.assert_array_equal(np.sort(ids, 1), expected_ids)


def by_hand(selection: np.ndarray, k: int) -> list[int]:
    """The k best by a plain sort on (score, id)."""
    return sorted(range(len(selection)), key=lambda e: (-selection[e], e))[:k]


@pytest.mark.parametrize("attributes", [
    dict(score="none"), dict(score="relu"), dict(score="sigmoid"), dict(score="sqrt_softplus"),
    dict(order="select_then_score"),
    dict(score="sigmoid", order="select_then_score"), dict()], ids=str)
def test_ties_go_to_the_lowest_id(attributes):
    """Logits of few values; which expert wins is a matter of its number only."""
    logits = data.rng("ties").integers(-1, 2, (60, E)).astype(np.float32)
    weights, ids = gate(logits, top_k=K, **attributes)
    expected = [by_hand(np.maximum(row, 0) if attributes.get("score") == "relu" else row, K)
                for row in logits]
    np.testing.assert_array_equal(ids, expected)


def test_sqrt_softplus():
    """Against torch, at logits where eˣ overflows or vanishes, too."""
    torch = pytest.importorskip("torch")
    logits = np.concatenate([np.linspace(-90, 90, 4 * E), np.linspace(-3, 3, 4 * E)])
    logits = logits.astype(np.float32).reshape(-1, E)
    weights, ids = gate(logits, top_k=E, score="sqrt_softplus")
    scores = torch.nn.functional.softplus(torch.from_numpy(logits).double(), threshold=1e9)
    np.testing.assert_allclose(weights, np.take_along_axis(scores.sqrt().numpy(), ids, 1), 1e-6)


def chosen(scores: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """The scores of the choices, sorted: the same for any choice among equal scores."""
    assert (np.diff(np.sort(ids, 1)) > 0).all(), "an expert is chosen twice"
    return np.sort(np.take_along_axis(scores, ids, 1), 1)


@pytest.mark.parametrize("family", [name for name, (attributes, *_) in ROUTERS.items()
                                    if "groups" not in attributes])
def test_equal_scores(family):
    """Where scores are equal, transformers may choose another of them than the lowest id.

    Logits beyond 17 are all 1 after a sigmoid in f32, so that different logits tie, too."""
    random = data.rng("equal", family)
    logits = random.integers(-2, 3, (80, E)).astype(np.float32)
    logits[40:] = random.integers(15, 60, (40, E))
    bias = np.zeros(E, np.float32) if ROUTERS[family][2] else None
    (weights, ids), (expected, expected_ids) = both(family, logits, bias)
    scores = logits
    if "score" in ROUTERS[family][0]:
        scores = 1 / (1 + np.exp(-logits))
    np.testing.assert_array_equal(chosen(scores, ids), chosen(scores, expected_ids))
    np.testing.assert_allclose(np.sort(weights, 1), np.sort(expected, 1), rtol=2e-6)
    assert (ids != expected_ids).any()  # so it matters


@pytest.mark.parametrize("row, expected", [
    ([np.nan] * 8, [0, 1, 2]), ([-np.inf] * 8, [0, 1, 2]), ([np.inf] * 8, [0, 1, 2]),
    ([np.nan, 1, np.nan, 2, np.nan, np.nan, np.nan, np.nan], [3, 1, 0]),
    ([0.0, -0.0, 0.0, -0.0, 0, 0, 0, 0], [0, 1, 2]),
])
@pytest.mark.parametrize("order", ["score_then_select", "select_then_score", "score_each_choice"])
def test_broken_rows(row, expected, order):
    weights, ids = gate(np.array([row], np.float32), top_k=3, order=order)
    np.testing.assert_array_equal(ids, [expected])
    assert np.isfinite(weights).all() and (weights >= 0).all()


# -- the types routers work in ----------------------------------------------


def test_dbrx_in_bf16(p=1.0):
    """DBRX's softmax, norm and quotient are bf16; so is the selection."""
    from transformers.models.dbrx.modeling_dbrx import DbrxFFN

    for p in (1.0, 2.0, 3.0):
        module = DbrxFFN(hf.dbrx_config(top_k=K, p=p))
        logits = torch.randn(200, E, generator=torch.Generator().manual_seed(1)).bfloat16()
        expected, expected_ids = module.route_tokens_to_experts(logits)
        weights, ids = gate(logits.float().numpy(), top_k=K, normalize=Normalize("norm", p=p),
                            score_type=bfloat16())
        # Equal bf16 scores: torch promises no order, so compare them as scores.
        scores = logits.softmax(1).float().numpy()
        np.testing.assert_array_equal(np.take_along_axis(scores, ids, 1),
                                      np.take_along_axis(scores, expected_ids.numpy(), 1))
        difference = np.abs(weights.astype(np.float32) - expected.float().numpy())
        # torch's own accumulation of the norm may round the other way once.
        assert (difference <= 2.0**-8 * expected.float().numpy()).all()
        assert (difference == 0).mean() > 0.95


def test_gpt_oss_in_bf16():
    logits = torch.randn(200, E, generator=torch.Generator().manual_seed(2)).bfloat16()
    top, index = logits.topk(K, dim=-1)
    expected = top.softmax(1, dtype=torch.bfloat16).float().numpy()
    weights, ids = gate(logits.float().numpy(), top_k=K, order="select_then_score",
                        score_type=bfloat16())
    np.testing.assert_array_equal(logits.float().numpy()[np.arange(200)[:, None], ids],
                                  top.float().numpy())
    difference = np.abs(weights.astype(np.float32) - expected)
    assert (difference <= 2.0**-8 * expected).all() and (difference == 0).mean() > 0.99


def test_phimoe_sparsemixer():
    """The margin rule in its own code, with logits of every sign and of zero."""
    from transformers.models.phimoe.modeling_phimoe import sparsemixer

    random = data.rng("sparsemixer")
    for scale, shift in ((1, 0), (0.02, 1), (0.02, -1), (0.01, 0), (10, -20)):
        logits = (random.standard_normal((100, E)) * scale + shift).astype(np.float32)
        logits[::7, 3] = 0
        expected, expected_ids = sparsemixer(torch.from_numpy(logits), 0.01, False)
        weights, ids = gate(logits, top_k=2, order="score_each_choice", margin=0.02)
        np.testing.assert_array_equal(ids, expected_ids.numpy())
        np.testing.assert_allclose(weights, expected.numpy(), rtol=1e-5)


def test_llama4_router():
    from transformers.models.llama4.modeling_llama4 import Llama4Router

    config = hf.llama4_config(top_k=2)
    config.hidden_size = config.num_local_experts = E
    module = Llama4Router(config)
    with torch.no_grad():
        module.weight.copy_(torch.eye(E))
        logits = torch.randn(50, E)
        scores, _ = module(logits)
    weights, ids = gate(logits.numpy(), top_k=2, score="sigmoid", order="select_then_score")
    dense = np.zeros((50, E), np.float32)
    np.put_along_axis(dense, ids.astype(np.int64), weights, 1)
    np.testing.assert_allclose(dense, scores.numpy(), rtol=1e-6)


def test_switch_router_and_capacity():
    """The one-hot mask after capacity, which transformers computes per sequence."""
    from moe.reference import Capacity, dispatch
    from transformers.models.switch_transformers.modeling_switch_transformers import (
        SwitchTransformersTop1Router)

    for capacity in (0, 1, 3, 100):
        config = hf.switch_config(capacity)
        config.hidden_size = config.num_experts = E
        module = SwitchTransformersTop1Router(config).eval()
        with torch.no_grad():
            module.classifier.weight.copy_(torch.eye(E))
            logits = torch.randn(1, 70, E, generator=torch.Generator().manual_seed(3))
            mask, probability, _ = module(logits)
        weights, ids = gate(logits[0].numpy(), top_k=1)
        _, offsets, positions = dispatch(np.zeros((70, 1), np.float32), ids, num_experts=E,
                                         capacity=Capacity(fixed=capacity))
        np.testing.assert_allclose(weights, probability[0].numpy(), rtol=1e-6)
        np.testing.assert_array_equal(positions[:, 0] >= 0, mask[0].sum(-1).numpy() > 0)
        np.testing.assert_array_equal(np.diff(offsets), mask[0].sum(0).numpy())


@pytest.mark.parametrize("fill", ["zero", "neg_inf"])
def test_group_fill(fill):
    """Where biased scores of kept experts are negative, 0 beats them and -inf does not."""
    logits = data.rng("fill").standard_normal((40, E)).astype(np.float32)
    bias = np.full(E, -2.0, np.float32)
    _, ids = gate(logits, top_k=K, bias=bias, score="sigmoid",
                  groups=Groups(4, 2, "top2_sum", fill))
    selection = torch.from_numpy(logits).sigmoid() + torch.from_numpy(bias)
    groups = selection.view(40, 4, -1).topk(2, -1)[0].sum(-1).topk(2, -1)[1]
    kept = torch.zeros(40, 4).scatter(1, groups, 1).repeat_interleave(E // 4, 1)
    masked = selection.masked_fill(kept == 0, 0.0 if fill == "zero" else -torch.inf).numpy()
    np.testing.assert_array_equal(ids, [by_hand(row, K) for row in masked])
    inside = np.take_along_axis(kept.numpy(), ids.astype(np.int64), 1)
    assert (inside == (fill == "neg_inf")).all()
