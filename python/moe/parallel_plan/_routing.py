"""How tokens choose experts: uniform, Zipf, or as recorded."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from .._error import INVALID_ARGUMENT, MoEError

__all__ = ["Routing", "tail_rows", "uniform_hit"]


def _error(message: str) -> MoEError:
    return MoEError(INVALID_ARGUMENT, message)


def uniform_hit(experts: int, top_k: int, slots: int) -> float:
    """Return the probability that a token has a choice among ``slots`` of the experts.

    A token chooses ``top_k`` different ones, all sets alike: ``1 - C(E - L, K) / C(E, K)``.
    """
    return 1.0 - math.comb(max(experts - slots, 0), top_k) / math.comb(experts, top_k)


def tail_rows(tokens: int, hit: float, delta: float) -> int:
    """Return the rows that ``tokens`` independent tokens reach with probability ``delta`` at most.

    The least r with ``tokens * KL(r / tokens || hit) >= log(1 / delta)``, of which Chernoff's bound
    follows: P[rows >= r] <= delta. Where no r is rare enough it is ``tokens``, which no call
    exceeds. Tokens whose probabilities differ may be given by the mean of these (Hoeffding).
    """
    if tokens == 0 or hit <= 0:
        return 0
    if hit >= 1:
        return tokens
    least = math.log(1 / delta)

    def is_rare(rows: int) -> bool:
        share = rows / tokens
        divergence = share * math.log(share / hit) if share > 0 else 0.0
        if share < 1:
            divergence += (1 - share) * math.log((1 - share) / (1 - hit))
        return tokens * divergence >= least

    low, high = math.ceil(tokens * hit), tokens
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if is_rare(middle) else (middle + 1, high)
    return low


@dataclass(frozen=True)
class Routing:
    """The choices of a layer's tokens.

    ``load`` are the expected choices of a token for each expert; they sum to ``top_k`` at most.
    Given these, sets of ``top_k`` experts have the distribution of the largest entropy
    (conditional Poisson sampling): all sets alike where the loads are. ``groups`` is (G, g): a
    token chooses g of G groups of neighbouring experts first, all alike. ``ids`` ``[T, K]`` are
    recorded choices; what depends on them is counted.
    """

    name: str
    load: np.ndarray
    top_k: int
    groups: tuple[int, int] = (1, 1)
    ids: np.ndarray | None = None
    _odds: list[np.ndarray] = field(default_factory=list, repr=False, compare=False)

    @property
    def experts(self) -> int:
        """The number of experts."""
        return len(self.load)

    @property
    def is_uniform(self) -> bool:
        """Whether all experts have the same load, in one group."""
        return (self.ids is None and self.groups == (1, 1)
                and bool((self.load == self.load[0]).all()))

    @staticmethod
    def uniform(experts: int, top_k: int, groups: tuple[int, int] = (1, 1)) -> Routing:
        """All experts alike; of ``groups`` (G, g) a token uses g."""
        _check_sizes(experts, top_k)
        count, kept = groups
        if count < 1 or not 1 <= kept <= count or experts % count:
            raise _error(f"groups are {count}:{kept}, expected a divisor of {experts} experts, and "
                         "as many of the groups at most")
        if experts // count * kept < top_k:
            raise _error(f"groups {count}:{kept} have {experts // count * kept} experts for a "
                         f"token, expected at least top_k {top_k}")
        name = "uniform" if groups == (1, 1) else f"uniform, {kept} of {count} groups"
        return Routing(name, np.full(experts, top_k / experts), top_k, groups)

    @staticmethod
    def zipf(experts: int, top_k: int, exponent: float) -> Routing:
        """Expert e in proportion to ``(e + 1) ** -exponent``, none more than once a token."""
        _check_sizes(experts, top_k)
        if not 0 <= exponent <= 64:
            raise _error(f"zipf has exponent {exponent:g}, expected 0 to 64")
        weights = np.arange(1, experts + 1, dtype=np.float64) ** -exponent
        return Routing(f"zipf:{exponent:g}", inclusion(weights, top_k), top_k)

    @staticmethod
    def counted(counts: np.ndarray, top_k: int, name: str = "recorded counts") -> Routing:
        """Experts in proportion to counts of their rows."""
        counts = np.asarray(counts, np.float64)
        _check_sizes(len(counts), top_k)
        if not np.isfinite(counts).all() or (counts < 0).any() or not counts.any():
            raise _error("expected counts of at least 0, one of them more")
        return Routing(name, inclusion(counts, top_k), top_k)

    @staticmethod
    def recorded(ids: np.ndarray, experts: int, name: str = "recorded routes") -> Routing:
        """The choices of recorded tokens, −1 for none."""
        if ids.ndim != 2 or ids.dtype.kind not in "iu" or not ids.size:
            raise _error(f"routes are {ids.dtype}{list(ids.shape)}, expected integers [T, K]")
        _check_sizes(experts, ids.shape[1])
        if ids.min() < -1 or ids.max() >= experts:
            wrong = int(ids.min() if ids.min() < -1 else ids.max())
            raise _error(f"routes have expert {wrong}, expected 0 to {experts - 1} or -1")
        load = np.bincount(ids[ids >= 0], minlength=experts) / len(ids)
        return Routing(name, load, ids.shape[1], ids=np.ascontiguousarray(ids, np.int64))

    def hit(self, held: np.ndarray) -> np.ndarray:
        """Return the probability that a token has a choice in each of several places.

        ``held`` ``[places, E]`` is the probability that a choice of an expert goes to the place,
        independent of other choices. Not of recorded ids.
        """
        held = np.asarray(held, np.float64)
        whole = ((held == 0) | (held == 1)).all()
        if whole and self.is_uniform:
            counts = held.sum(-1).astype(int)
            unique, at = np.unique(counts, return_inverse=True)
            return np.array([uniform_hit(self.experts, self.top_k, int(n)) for n in unique])[at]
        p = self._bernoulli()
        everything = self._weight(p, np.ones((1, self.experts)))
        return np.clip(1 - self._weight(p, 1 - held) / everything, 0, 1)

    def _bernoulli(self) -> np.ndarray:
        """Independent choices of experts that have the load of this, given their number."""
        if not self._odds:
            count, kept = self.groups
            if count > 1:
                p = np.full(self.experts, self.top_k / (self.experts // count * kept))
            else:
                p = calibrate(self.load)
            self._odds.append(p)
        return self._odds[0]

    def _weight(self, p: np.ndarray, kept: np.ndarray) -> np.ndarray:
        """The probability of ``top_k`` choices, each kept: the sum over the sets of groups."""
        count, used = self.groups
        choices = int(round(self.load.sum())) if count == 1 else self.top_k
        size = self.experts // count
        states = np.zeros((used + 1, len(kept), choices + 1))
        states[0, :, 0] = 1
        for group in range(count):
            of = slice(group * size, (group + 1) * size)
            factor = _polynomial(p[of], kept[:, of], choices)
            for chosen in range(min(group + 1, used), 0, -1):
                states[chosen] += _multiply(states[chosen - 1], factor)
        return states[used][:, choices]


def _check_sizes(experts: int, top_k: int) -> None:
    if experts < 1:
        raise _error(f"expected at least 1 expert, got {experts}")
    if not 1 <= top_k <= experts:
        raise _error(f"top_k is {top_k}, expected 1 to {experts} experts")


def inclusion(weights: np.ndarray, top_k: int) -> np.ndarray:
    """Return probabilities in proportion to weights that sum to ``top_k``, none above 1.

    What exceeds 1 is spread over the others, as ``moe-compile --imbalance`` does it.
    """
    probabilities = np.zeros(len(weights))
    is_open = weights > 0
    left = float(min(top_k, int(is_open.sum())))
    while is_open.any():
        probabilities[is_open] = left / weights[is_open].sum() * weights[is_open]
        full = is_open & (probabilities >= 1)
        if not full.any():
            break
        probabilities[full] = 1
        left -= int(full.sum())
        is_open &= ~full
    return probabilities


def calibrate(load: np.ndarray) -> np.ndarray:
    """Return the probabilities of independent choices that have ``load`` given their number.

    Iterates ``odds *= odds(load) / odds(load that they have)``, the scheme of Chen, Dempster and
    Liu (1994) with odds in place of loads, which needs few steps for loads near 1, too.
    """
    p = np.asarray(load, np.float64).copy()
    is_open = (p > 1e-14) & (p < 1 - 1e-14)
    p[~is_open] = np.round(p[~is_open])
    target = p[is_open]
    choices = int(round(target.sum()))
    if not is_open.any() or choices == 0 or np.ptp(target) == 0:
        return p
    odds = target / (1 - target)
    for _ in range(500):
        found = _inclusion_given(odds / (1 + odds), choices)
        if np.abs(found / target - 1).max() < 1e-10:
            break
        odds *= target / (1 - target) * (1 - found) / found
        # The scale of odds has no meaning; keep the mean number of choices.
        odds = _scaled(odds, choices)
    p[is_open] = odds / (1 + odds)
    return p


def _scaled(odds: np.ndarray, choices: int) -> np.ndarray:
    low, high = -700.0, 700.0
    for _ in range(60):
        middle = (low + high) / 2
        scaled = odds * math.exp(middle)
        low, high = (middle, high) if (scaled / (1 + scaled)).sum() < choices else (low, middle)
    return odds * math.exp(low)


def _inclusion_given(p: np.ndarray, choices: int) -> np.ndarray:
    """P[expert chosen | choices experts chosen], by the experts before and behind each."""
    count = len(p)
    before = np.zeros((count + 1, choices + 1))
    behind = np.zeros((count + 1, choices + 1))
    before[0, 0] = behind[count, 0] = 1
    for e in range(count):
        before[e + 1] = before[e] * (1 - p[e])
        before[e + 1, 1:] += before[e, :-1] * p[e]
    for e in range(count - 1, -1, -1):
        behind[e] = behind[e + 1] * (1 - p[e])
        behind[e, 1:] += behind[e + 1, :-1] * p[e]
    others = (before[:-1, :choices] * behind[1:, choices - 1::-1][:, :choices]).sum(1)
    return p * others / before[count, choices]


def _polynomial(p: np.ndarray, kept: np.ndarray, degree: int) -> np.ndarray:
    """Coefficients of ``prod(1 - p + p * kept * x)`` up to a degree, for each row of ``kept``."""
    found = np.zeros((len(kept), degree + 1))
    found[:, 0] = 1
    for e, probability in enumerate(p):
        if probability == 0:
            continue
        more = found[:, :-1] * (probability * kept[:, e])[:, None]
        found *= 1 - probability
        found[:, 1:] += more
    return found


def _multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Products of polynomials, up to their degree."""
    product = np.zeros_like(a)
    for power in range(a.shape[1]):
        product[:, power:] += a[:, power, None] * b[:, :a.shape[1] - power]
    return product
