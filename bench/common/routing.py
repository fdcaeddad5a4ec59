"""Draws of expert ids from a seed, uniform or skewed."""

from __future__ import annotations

import numpy as np

ROUTINGS = ("uniform", "zipf")
ZIPF_EXPONENT = 1.0


def popularity(routing: str, experts: int, rng: np.random.Generator) -> np.ndarray:
    """Return the probability of each expert; popular ones have random ids."""
    if routing == "uniform":
        return np.full(experts, 1 / experts)
    if routing == "zipf":
        weights = np.arange(1, experts + 1) ** -ZIPF_EXPONENT
        return rng.permutation(weights / weights.sum())
    raise ValueError(f"expected a routing of {', '.join(ROUTINGS)}, got '{routing}'")


def draw_ids(probabilities: np.ndarray, tokens: int, top_k: int,
             rng: np.random.Generator) -> np.ndarray:
    """Draw ``[T, K]`` distinct experts for each token without replacement, in order of selection
    (the Gumbel top-k trick)."""
    keys = np.log(probabilities) + rng.gumbel(size=(tokens, len(probabilities)))
    return np.argsort(-keys, axis=1)[:, :top_k].astype(np.int32)


def logits_for(ids: np.ndarray, experts: int, rng: np.random.Generator) -> np.ndarray:
    """Return logits whose top K are ``ids``, in this order.

    Chosen logits exceed the others by at least 1, more than any rounding of x, of the router or
    of the logits to bf16, so that all participants have the same routing.
    """
    tokens, top_k = ids.shape
    logits = rng.uniform(-2.0, 0.0, (tokens, experts))
    chosen = 1.0 + np.sort(rng.uniform(0.0, 2.0, (tokens, top_k)), axis=1)[:, ::-1]
    np.put_along_axis(logits, ids.astype(np.int64), chosen, axis=1)
    return logits


def active_experts(ids: np.ndarray) -> int:
    return len(np.unique(ids))
