"""Which experts tokens go to: draws from a seed, uniform or skewed."""

from __future__ import annotations

import numpy as np

ROUTINGS = ("uniform", "zipf")
ZIPF_EXPONENT = 1.0


def popularity(routing: str, experts: int, rng: np.random.Generator) -> np.ndarray:
    """The probability of each expert, the popular ones in places drawn at random."""
    if routing == "uniform":
        return np.full(experts, 1 / experts)
    if routing == "zipf":
        weights = np.arange(1, experts + 1) ** -ZIPF_EXPONENT
        return rng.permutation(weights / weights.sum())
    raise ValueError(f"expected a routing of {', '.join(ROUTINGS)}, got '{routing}'")


def draw_ids(probabilities: np.ndarray, tokens: int, top_k: int,
             rng: np.random.Generator) -> np.ndarray:
    """``[T, K]`` distinct experts for each token, drawn one after the other without
    replacement (the Gumbel top-k trick), the first drawn first."""
    keys = np.log(probabilities) + rng.gumbel(size=(tokens, len(probabilities)))
    return np.argsort(-keys, axis=1)[:, :top_k].astype(np.int32)


def logits_for(ids: np.ndarray, experts: int, rng: np.random.Generator) -> np.ndarray:
    """Logits whose top K are ``ids``, the first one highest.

    The chosen lie at least 1 above the others, which no rounding of x, of the router or of
    the logits to bf16 bridges: all participants see the same routing.
    """
    tokens, top_k = ids.shape
    logits = rng.uniform(-2.0, 0.0, (tokens, experts))
    chosen = 1.0 + np.sort(rng.uniform(0.0, 2.0, (tokens, top_k)), axis=1)[:, ::-1]
    np.put_along_axis(logits, ids.astype(np.int64), chosen, axis=1)
    return logits


def active_experts(ids: np.ndarray) -> int:
    return len(np.unique(ids))
