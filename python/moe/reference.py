"""The four operations of the moe dialect in numpy, slowly and plainly.

This module defines the results of ``moe.gate``, ``moe.dispatch``, ``moe.expert`` and
``moe.combine``; nothing here is fast.  It follows the text of
``include/moe/Dialect/MoE/IR/MoEOps.td`` step by step and imports only numpy
(and ``ml_dtypes`` for bfloat16).

Symbols: ``T`` tokens, ``E`` experts, ``K`` choices per token, ``H`` hidden
size, ``C`` rows an expert takes, ``R`` grouped rows.

All functions guarantee:

* Ties go to the lowest expert id (or token); NaN counts as -inf.
* An id is in ``[0, E)`` or -1, "no expert".  Any other id reads and writes
  nothing.
* All arithmetic is in f32, and sums run in ascending order.
* A softmax counts its maximum as exp(0) = 1 even if it is infinite, so +inf
  takes all and a row of -inf is uniform.  A denominator of 0 makes weights 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ._exchange import all_gather, collect, exchange, own_rows, partition, place

__all__ = ["Capacity", "Groups", "Normalize", "all_gather", "bfloat16", "collect", "combine",
           "dispatch", "exchange", "expert", "gate", "grouped_rows_bound", "keep", "own_rows",
           "partition", "place"]

_NEG_INF = np.float32(-np.inf)


def bfloat16() -> np.dtype:
    """Return the bfloat16 dtype of ``ml_dtypes``."""
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16)


# --------------------------------------------------------------------------
# Attributes
# --------------------------------------------------------------------------


@dataclass(frozen=True)
class Groups:
    """``#moe.groups``: selection limited to the best groups of experts.

    ``count`` groups of consecutive experts; the score of a group is that of its best
    expert (``max``, DeepSeek-V2) or the sum of its two best (``top2_sum``,
    DeepSeek-V3).  The ``keep`` best groups stay; ``fill``, ``neg_inf`` or ``zero``,
    replaces the selection scores of other experts.
    """

    count: int
    keep: int
    score: str = "max"
    fill: str = "neg_inf"


@dataclass(frozen=True)
class Normalize:
    """``#moe.normalize``: how the weights of one token are normalised.

    ``sum`` divides by ``d = sum(w)`` (Mixtral), ``norm`` by
    ``d = sum(|w| ** p) ** (1 / p)`` (DBRX), ``softmax`` takes the softmax of the
    weights.  ``epsilon`` is added to ``d`` (DeepSeek-V3) or bounds it from below
    (``guard="clamp"``, DeepSpeed).
    """

    kind: str
    p: float = 2.0
    epsilon: float = 0.0
    guard: str = "add"


@dataclass(frozen=True)
class Capacity:
    """``#moe.capacity``: the rows that one expert takes.

    Either ``fixed`` rows (Switch in transformers), or
    ``C = max(min(limit, round(factor * T / E)), minimum)``, where ``limit`` is
    ``T`` with ``at_most_tokens`` (Mesh-TensorFlow) and infinite without
    (DeepSpeed).  The product is evaluated in f64.
    """

    fixed: int = -1
    factor: float = 0.0
    rounding: str = "ceil"
    minimum: int = 0
    at_most_tokens: bool = False

    def evaluate(self, tokens: int, experts: int) -> int:
        """Return the capacity for ``tokens`` tokens and ``experts`` experts."""
        if self.fixed >= 0:
            return self.fixed
        exact = self.factor * float(tokens) / float(experts)
        rows = math.ceil(exact) if self.rounding == "ceil" else math.floor(exact)
        if self.at_most_tokens:
            rows = min(tokens, rows)
        return max(rows, self.minimum)


# --------------------------------------------------------------------------
# f32 arithmetic, step by step
# --------------------------------------------------------------------------


def _f32(value: ArrayLike) -> NDArray[np.float32]:
    return np.asarray(value).astype(np.float32)


def _round(value: ArrayLike, dtype: np.dtype) -> NDArray[np.float32]:
    """Round ``value`` to ``dtype``; the result has type f32."""
    return np.asarray(value, np.float32).astype(dtype).astype(np.float32)


def _sum(values: Sequence[np.float32] | NDArray[np.float32]) -> np.float32:
    """Return the sum in f32, in ascending order."""
    total = np.float32(0)
    for value in values:
        total = np.float32(total + value)
    return total


def _softmax(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the softmax of a vector; empty for an empty one."""
    if len(values) == 0:
        return values
    largest = values.max()
    exps = np.where(values == largest, np.float32(1), np.exp(values - largest))
    return (exps / _sum(exps)).astype(np.float32)


def _elementwise_score(values: NDArray[np.float32], score: str) -> NDArray[np.float32]:
    if score == "none":
        return values
    if score == "sigmoid":
        return (np.float32(1) / (np.float32(1) + np.exp(-values))).astype(np.float32)
    if score == "relu":
        return np.maximum(values, np.float32(0))
    if score == "sqrt_softplus":
        return np.sqrt(np.logaddexp(values, np.float32(0))).astype(np.float32)
    raise ValueError(f"unknown score '{score}'")


def _score_matrix(logits: NDArray[np.float32], score: str, axis: str) -> NDArray[np.float32]:
    """Return the scores of all experts for all tokens."""
    if score != "softmax":
        return _elementwise_score(logits, score)
    out = np.empty_like(logits)
    if axis == "experts":
        for t in range(logits.shape[0]):
            out[t] = _softmax(logits[t])
    else:
        for e in range(logits.shape[1]):
            out[:, e] = _softmax(logits[:, e])
    return out


def _no_nan(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.where(np.isnan(values), _NEG_INF, values)


def _best(values: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Return the indices of the ``count`` largest, largest first, ties to the lowest."""
    return np.argsort(-_no_nan(values), kind="stable")[:count]


def _normalized(weights: NDArray[np.float32], counted: NDArray[np.bool_], how: Normalize,
                dtype: np.dtype) -> NDArray[np.float32]:
    """Normalise the weights of one token over those that are ``counted``.

    All weights are divided by the denominator of the counted ones.  A softmax
    makes the others 0.  Denominators and quotients are rounded to ``dtype``.
    """
    part = weights[counted]
    if how.kind == "softmax":
        out = np.zeros_like(weights)
        out[counted] = _round(_softmax(part), dtype)
        return out
    if how.kind == "sum":
        denominator = _sum(part)
    elif how.p == 1.0:
        denominator = _sum(np.abs(part))
    elif how.p == 2.0:
        denominator = np.sqrt(_sum(part * part))
    else:
        powers = np.abs(part) ** np.float32(how.p)
        denominator = _sum(powers) ** np.float32(1.0 / how.p)
    denominator = _round(denominator, dtype)
    epsilon = np.float32(how.epsilon)
    if how.guard == "clamp":
        denominator = np.maximum(denominator, epsilon)
    else:
        denominator = denominator + epsilon
    denominator = _round(denominator, dtype)
    if denominator == 0:
        return np.zeros_like(weights)
    return _round(weights / denominator, dtype)


# --------------------------------------------------------------------------
# moe.gate
# --------------------------------------------------------------------------


def _limit_groups(selection: NDArray[np.float32], groups: Groups) -> NDArray[np.float32]:
    """Fill the selection scores of one token for experts outside the best groups."""
    by_group = _no_nan(selection).reshape(groups.count, -1)
    scores = np.empty(groups.count, np.float32)
    for g in range(groups.count):
        ranked = np.sort(by_group[g])[::-1]
        scores[g] = ranked[0] if groups.score == "max" else _sum(ranked[:2])
    kept = _best(scores, groups.keep)
    fill = _NEG_INF if groups.fill == "neg_inf" else np.float32(0)
    out = np.full_like(by_group, fill)
    out[kept] = by_group[kept]
    return out.reshape(-1)


def _score_each_choice(logits: NDArray[np.float32], top_k: int, margin: float | None,
                       given: NDArray[np.int64] | None,
                       dtype: np.dtype) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return weights and ids of one token, scoring each choice separately.

    Source: SparseMixer (arXiv:2310.00811), as Phi-3.5-MoE runs it.  The best
    remaining logit is chosen, or the given one; its weight is its softmax over the
    remaining experts that are not too far below the best.  A given choice without an
    expert has taken the best, as one below a threshold.
    """
    left = np.ones(len(logits), bool)
    weights = np.zeros(top_k, np.float32)
    ids = np.full(top_k, -1, np.int64)
    for k in range(top_k):
        candidates = np.flatnonzero(left)
        e = candidates[_best(logits[candidates], 1)[0]]
        best = logits[e]
        counted = left.copy()
        if margin is not None:
            counted &= ~((best - logits) / np.maximum(np.abs(logits), best) > np.float32(margin))
        scores = np.zeros_like(logits)
        scores[counted] = _round(_softmax(logits[counted]), dtype)
        ids[k] = e if given is None else given[k]
        if 0 <= ids[k] < len(logits):
            e, weights[k] = ids[k], scores[ids[k]]
        left[e] = False
    return weights, ids


def gate(logits: ArrayLike, *, top_k: int, bias: ArrayLike | None = None,
         noise: ArrayLike | None = None, ids: ArrayLike | None = None, score: str = "softmax",
         score_axis: str = "experts", order: str = "score_then_select",
         select: str = "token_choice", margin: float | None = None, groups: Groups | None = None,
         capacity: Capacity | None = None, threshold: float | None = None,
         normalize: Normalize | None = None, scale: float | None = None,
         score_type: DTypeLike = np.float32) -> tuple[np.ndarray, NDArray[np.int32]]:
    """``moe.gate``: choose experts for every token and weigh them.

    Args:
      logits: ``[T, E]`` f32, f16 or bf16, of the router.
      top_k: ``K``.
      bias: ``[E]``, added to the scores for the selection only
        (aux-loss-free balancing, arXiv:2408.15664; DeepSeek-V3).
      noise: ``[T, E]``, added to the logits (noisy top-k, arXiv:1701.06538).
      ids: ``[T, K]`` i32, a given choice (hash layers, arXiv:2106.04426); in
        ``score_each_choice`` one without an expert takes the best that is left,
        with weight 0, and the others are scored, and have gradients, without it.
      score: ``softmax`` (Mixtral, Switch), ``sigmoid`` (DeepSeek-V3, Llama 4),
        ``relu`` (ReMoE, arXiv:2412.14711), ``sqrt_softplus`` (DeepSeek-V4) or ``none``.
      score_axis: a softmax runs over the ``experts`` of a token or over the
        ``tokens`` (Mesh-TensorFlow's expert_selection).
      order: ``score_then_select`` (Mixtral), ``select_then_score`` (gpt-oss,
        Granite, Llama 4) or ``score_each_choice`` (Phi-3.5-MoE; softmax only, no
        bias or groups).
      select: ``token_choice``, or ``expert_choice`` (arXiv:2202.09368): every
        expert takes its ``C`` best tokens, column ``e`` of the result is expert
        ``e``.
      margin: of ``score_each_choice``: experts with
        ``(best - l) / max(|l|, best) > margin`` are masked.
      groups: group-limited selection (DeepSeek-V2, -V3).
      capacity: ``C`` of ``expert_choice``.
      threshold: a choice whose score is not above it becomes -1.
      normalize: normalisation of a token's weights.
      scale: multiplies the weights last.
      score_type: the type of the weights; every score, denominator, quotient and
        scaled weight is rounded to it.

    Returns:
      ``(weights, ids)``: ``[T, K]`` of ``score_type``, best first, and ``[T, K]``
      i32, -1 where a choice has no expert (its weight is 0).
    """
    with np.errstate(all="ignore"):
        return _gate(_f32(logits), top_k, bias, noise, ids, score, score_axis, order, select,
                     margin, groups, capacity, threshold, normalize, scale, np.dtype(score_type))


def _gate(logits, top_k, bias, noise, given, score, score_axis, order, select, margin, groups,
          capacity, threshold, normalize, scale, dtype):
    tokens, experts = logits.shape
    # Step 1: noise; NaN becomes -inf.
    if noise is not None:
        logits = logits + _f32(noise)
    logits = _no_nan(logits)
    if given is not None:
        given = np.asarray(given).astype(np.int64)

    # Step 2: scores of all experts, if they precede the selection.
    scores = logits
    if order == "score_then_select":
        scores = _round(_score_matrix(logits, score, score_axis), dtype)

    # Step 3: selection scores.
    def selection_of(row: NDArray[np.float32]) -> NDArray[np.float32]:
        selection = row if bias is None else row + _f32(bias)
        return selection if groups is None else _limit_groups(selection, groups)

    # Step 4: the selection.
    ids = np.full((tokens, top_k), -1, np.int64)
    weights = np.zeros((tokens, top_k), np.float32)
    if order == "score_each_choice":
        assert score == "softmax" and bias is None and groups is None
        for t in range(tokens):
            weights[t], ids[t] = _score_each_choice(
                logits[t], top_k, margin, None if given is None else given[t], dtype)
    elif given is not None:
        ids = given.copy()
    elif select == "token_choice":
        for t in range(tokens):
            ids[t] = _best(selection_of(scores[t]), top_k)
    elif select == "expert_choice":
        assert top_k == experts, "expert choice has K = E"
        rows = np.stack([selection_of(row) for row in scores]) if tokens else scores
        taken = min(capacity.evaluate(tokens, experts), tokens)
        for e in range(experts):
            for t in _best(rows[:, e], taken):
                ids[t, e] = e
    else:
        raise ValueError(f"unknown selection '{select}'")
    chosen = (ids >= 0) & (ids < experts)

    # The weights: scores of the selected experts, or scored now.
    if order != "score_each_choice":
        for t, k in zip(*np.nonzero(chosen)):
            weights[t, k] = scores[t, ids[t, k]]
    if order == "select_then_score":
        weights = _score_choices(weights, chosen, score)
        weights = np.where(chosen, _round(weights, dtype), np.float32(0))

    # Step 5: the threshold.
    if threshold is not None:
        below = chosen & ~(weights > np.float32(threshold))
        ids[below] = -1
        weights[below] = 0
        chosen &= ~below

    # Step 6: normalisation and scale.
    if normalize is not None:
        for t in range(tokens):
            weights[t] = _normalized(weights[t], chosen[t], normalize, dtype)
        weights[~chosen] = 0
    if scale is not None:
        weights = np.where(chosen, _round(weights * np.float32(scale), dtype), np.float32(0))
    return weights.astype(dtype), ids.astype(np.int32)


def _score_choices(logits: NDArray[np.float32], chosen: NDArray[np.bool_],
                   score: str) -> NDArray[np.float32]:
    """Return the scores over the chosen logits ``[T, K]`` only (``select_then_score``)."""
    if score != "softmax":
        return _elementwise_score(logits, score)
    out = np.zeros_like(logits)
    for t in range(logits.shape[0]):
        out[t, chosen[t]] = _softmax(logits[t, chosen[t]])
    return out


# --------------------------------------------------------------------------
# moe.dispatch
# --------------------------------------------------------------------------


def grouped_rows_bound(tokens: int, top_k: int, experts: int,
                       capacity: Capacity | None = None) -> int:
    """Return ``R``: ``T * K``, or ``min(T * K, E * C)`` with a capacity."""
    if capacity is None:
        return tokens * top_k
    return min(tokens * top_k, experts * capacity.evaluate(tokens, experts))


def _kept_choices(ids: NDArray[np.int64], weights: NDArray[np.float32] | None, experts: int,
                  room: int, priority: str, overflow: str, choices: int) -> NDArray[np.bool_]:
    """Return which choices ``[T, K]`` are kept if every expert has ``room`` rows.

    Choices are processed in the order of ``priority``.  One is kept if its expert has
    room and its token has fewer than ``choices`` kept.  Under
    ``drop`` only the first ``choices`` candidates of a token are considered.
    (``next_choice`` goes with ``position`` and ``choice`` only.)
    """
    tokens, top_k = ids.shape
    queue = [(t, k) for t in range(tokens) for k in range(top_k) if 0 <= ids[t, k] < experts]
    if overflow == "drop":
        queue = [(t, k) for t, k in queue if k < choices]
    if priority == "choice":
        queue.sort(key=lambda tk: (tk[1], tk[0]))
    elif priority == "probability":
        ranked = _no_nan(weights)
        queue.sort(key=lambda tk: (-ranked[tk], tk[0], tk[1]))
    elif priority != "position":
        raise ValueError(f"unknown priority '{priority}'")

    kept = np.zeros((tokens, top_k), bool)
    used = np.zeros(experts, np.int64)
    for t, k in queue:
        e = ids[t, k]
        if used[e] < room and kept[t].sum() < choices:
            kept[t, k] = True
            used[e] += 1
    return kept


def dispatch(rows: ArrayLike, ids: ArrayLike, *, num_experts: int,
             weights: ArrayLike | None = None, capacity: Capacity | None = None,
             priority: str = "position", overflow: str = "drop", choices: int | None = None,
             uncovered: str = "undefined", scale_rows: bool = False,
             ) -> tuple[np.ndarray, NDArray[np.int32], NDArray[np.int32]]:
    """``moe.dispatch``: group the rows of the tokens by expert.

    Args:
      rows: ``[T, H]`` f32, f16 or bf16.
      ids: ``[T, K]`` i32.
      num_experts: ``E``.
      weights: ``[T, K]``, for ``priority="probability"`` and ``scale_rows``.
      capacity: rows one expert takes; dropless without.
      priority: the choices that a full expert keeps: the first in token order
        (``position``, Switch), first choices before second ones (``choice``,
        GShard and Mesh-TensorFlow) or the largest weights (``probability``,
        DeepSpeed).
      overflow: ``drop``, or ``next_choice`` (Mesh-TensorFlow's NTLB): of the
        ``K`` candidates of a token, the first ``choices`` with room are kept.
      choices: choices of a token that are kept at most; ``K`` by default.
      uncovered: rows from ``offsets[E]`` on are ``undefined`` (NaN here, so
        that reading them is noticed) or ``zero``.
      scale_rows: multiply each copy by its weight, in f32, rounded once
        (Llama 4).

    Returns:
      ``(grouped [R, H], offsets [E + 1] i32, positions [T, K] i32)``.
    """
    rows = np.asarray(rows)
    ids = np.asarray(ids).astype(np.int64)
    tokens, top_k = ids.shape
    room = tokens * top_k if capacity is None else capacity.evaluate(tokens, num_experts)
    weights_f32 = None if weights is None else _f32(weights)
    kept = _kept_choices(ids, weights_f32, num_experts, room, priority, overflow,
                         top_k if choices is None else choices)

    bound = grouped_rows_bound(tokens, top_k, num_experts, capacity)
    fill = np.nan if uncovered == "undefined" else 0.0
    grouped = np.full((bound, rows.shape[1]), fill, rows.dtype)
    offsets = np.zeros(num_experts + 1, np.int32)
    positions = np.full((tokens, top_k), -1, np.int32)
    row = 0
    for e in range(num_experts):
        offsets[e] = row
        for t, k in zip(*np.nonzero(kept & (ids == e))):  # in order of (t, k)
            positions[t, k] = row
            grouped[row] = rows[t]
            if scale_rows:
                with np.errstate(all="ignore"):
                    grouped[row] = (_f32(rows[t]) * weights_f32[t, k]).astype(rows.dtype)
            row += 1
    offsets[num_experts] = row
    return grouped, offsets, positions


# --------------------------------------------------------------------------
# moe.expert
# --------------------------------------------------------------------------


def expert(grouped: ArrayLike, offsets: ArrayLike, params: Sequence[ArrayLike],
           body: Callable[..., np.ndarray], *, init: ArrayLike | None = None, first: int = 0,
           count: int | None = None, uncovered: str = "undefined") -> np.ndarray:
    """``moe.expert``: apply ``body`` to the rows of each expert of a range.

    Args:
      grouped: ``[R, H]``.
      offsets: ``[E + 1]`` i32: expert ``e`` owns rows ``offsets[e]`` to
        ``offsets[e + 1]``.
      params: arrays with a leading dimension of ``count``; ``body`` gets the
        slices of its expert.
      body: ``body(rows [n, H], *slices) -> [n, H']``; not called for an empty
        expert.
      init: ``[R, H']``, the rows outside the range; without it they are
        ``uncovered``: ``undefined`` (NaN here) or ``zero``.
      first, count: the range of experts, by default all.  With ``init=grouped``
        the others are copy experts, with ``uncovered="zero"`` zero experts
        (MoE++, arXiv:2410.07348).

    Returns:
      ``[R, H']``.
    """
    grouped = np.asarray(grouped)
    offsets = np.asarray(offsets)
    params = [np.asarray(p) for p in params]
    if count is None:
        count = len(offsets) - 1 - first
    parts: list[tuple[slice, np.ndarray]] = []
    for e in range(first, first + count):
        mine = slice(int(offsets[e]), int(offsets[e + 1]))
        if mine.start < mine.stop:
            parts.append((mine, np.asarray(body(grouped[mine], *(p[e - first] for p in params)))))
    if init is not None:
        out = np.array(init)
    else:
        like = parts[0][1] if parts else grouped
        fill = np.nan if uncovered == "undefined" else 0.0
        out = np.full((grouped.shape[0], like.shape[1]), fill, like.dtype)
    for mine, result in parts:
        out[mine] = result
    return out


# --------------------------------------------------------------------------
# moe.combine
# --------------------------------------------------------------------------


def combine(grouped: ArrayLike, positions: ArrayLike, *, weights: ArrayLike | None = None,
            dropped: ArrayLike | None = None, normalize: Normalize | None = None) -> np.ndarray:
    """``moe.combine``: add up the rows of every token, weighted.

    ``y[t] = sum over k, ascending, of w[t, k] * grouped[positions[t, k]]``, in
    f32, rounded once.

    Args:
      grouped: ``[R, H]``.
      positions: ``[T, K]`` i32; -1 adds nothing, or ``w[t, k] * dropped[t]``.
      weights: ``[T, K]``; 1 where not given.
      dropped: ``[T, H]``, the contribution of a dropped choice (Switch: the token
        itself, scaled).
      normalize: the weights of a token are divided by those of the choices that
        were kept (DeepSpeed renormalises after drops).

    Returns:
      ``[T, H]`` of the type of ``grouped``.
    """
    grouped = np.asarray(grouped)
    positions = np.asarray(positions).astype(np.int64)
    tokens, top_k = positions.shape
    out = np.zeros((tokens, grouped.shape[1]), grouped.dtype)
    with np.errstate(all="ignore"):
        for t in range(tokens):
            w = np.ones(top_k, np.float32) if weights is None else _f32(np.asarray(weights)[t])
            if normalize is not None:
                w = _normalized(w, positions[t] >= 0, normalize, np.dtype(np.float32))
            total = np.zeros(grouped.shape[1], np.float32)
            for k in range(top_k):
                if 0 <= positions[t, k] < grouped.shape[0]:
                    total = total + w[k] * _f32(grouped[positions[t, k]])
                elif positions[t, k] < 0 and dropped is not None:
                    total = total + w[k] * _f32(np.asarray(dropped)[t])
            out[t] = total.astype(grouped.dtype)
    return out


# --------------------------------------------------------------------------
# Expert parallelism
# --------------------------------------------------------------------------


def keep(ids: ArrayLike, *, num_experts: int, capacity: Capacity,
         weights: ArrayLike | None = None, priority: str = "position", overflow: str = "drop",
         choices: int | None = None) -> NDArray[np.int32]:
    """``moe.keep``: the ids ``[T, K]`` with -1 for what ``dispatch`` would drop."""
    ids = np.asarray(ids).astype(np.int64)
    kept = _kept_choices(ids, None if weights is None else _f32(weights), num_experts,
                         capacity.evaluate(len(ids), num_experts), priority, overflow,
                         ids.shape[1] if choices is None else choices)
    return np.where(kept, ids, -1).astype(np.int32)
