"""Routing on a GPU, or on the double of its driver: a router's product, its gate and the
grouping of what it chooses, against numpy.

Rows and weights are small whole numbers, so that logits are exact and many are equal: choices
and rows have to be what numpy says, ties to the lowest expert.
"""

from __future__ import annotations

import hashlib
import json
import sys

import numpy as np
import pytest
from moe_testing import data
from moe_testing.cases.routing import (CHOOSERS, ROUTERS, ROUTES, arrays, check, check_choice,
                                       check_route, run)
from moe_testing.device import double

TARGETS = ["sm_80", "sm_90a"]
TOKENS = (0, 1, 15, 16, 17, 33, 600)

pytestmark = pytest.mark.usefixtures("device")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ROUTERS)
def test_routes(name, target):
    for tokens in TOKENS:
        check(name, target, tokens)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ["small", "two", "many", "f32", "switch", "gshard", "mesh"])
def test_all_tokens_choose_the_same(name, target):
    for tokens in (1, 16, 31, 333):
        check(name, target, tokens, skew=True)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ["two", "f32"])
def test_rows_that_are_no_numbers(name, target):
    """A token whose logits are NaN chooses the first experts, and disturbs no other."""
    x, w, b = arrays(name, 20)
    hostile = x.copy()
    hostile[7, 3] = np.nan
    hostile[19] = np.inf
    found, plain = run(name, target, hostile, w, b), run(name, target, x, w, b)
    others = [t for t in range(20) if t not in (7, 19)]
    np.testing.assert_array_equal(found[1][others], plain[1][others])
    np.testing.assert_array_equal(found[0][others], plain[0][others])
    np.testing.assert_array_equal(found[1][7], np.arange(ROUTERS[name].top_k))
    assert sorted(found[3].reshape(-1)) == list(range(found[3].size))


@pytest.mark.parametrize("kind", ["random", "skewed", "one", "hostile"])
@pytest.mark.parametrize("name", ROUTES)
def test_any_ids_are_grouped(name, kind):
    """By one block, which counts for itself, and by many."""
    for tokens in (0, 1, 2, 31, 513, 2500):
        check_route(name, kind, tokens)


@pytest.mark.parametrize("kind", ["random", "hostile"])
@pytest.mark.parametrize("name", ROUTES)
def test_rows_have_their_tokens(name, kind):
    for tokens in (50, 1100):
        check_route(name, kind, tokens, known=True)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", CHOOSERS)
def test_experts_choose_tokens(name, target):
    for tokens in (0, 1, 2, 33, 600, 1500):
        check_choice(name, target, tokens, grid=False)


@pytest.mark.parametrize("name", ["one", "none", "all", "bias", "threshold"])
def test_experts_choose_among_equals(name):
    """Of scores that are equal, infinite or no numbers: the first tokens."""
    for tokens in (1, 33, 600, 1500):
        check_choice(name, "sm_80", tokens, grid=True)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ["eight", "staged", "staged_twice", "many", "f32"])
def test_bits_do_not_depend_on_t(name, target):
    """However many blocks share the tokens, and whether their products pass through shared
    memory: the weights of each have the same bits."""
    router = ROUTERS[name]
    random = data.rng("bits")
    x = random.standard_normal((207, router.columns))
    w = random.standard_normal((router.experts, router.columns))
    bias = random.standard_normal(router.experts).astype(np.float32) if router.bias else None
    whole = run(name, target, x, w, bias)
    for a, b in ((0, 1), (1, 17), (17, 70), (70, 137)):
        part = run(name, target, x[a:b], w, bias)
        for i in (0, 1):
            np.testing.assert_array_equal(part[i].view(np.int32), whole[i][a:b].view(np.int32))


@pytest.mark.parametrize("target", TARGETS)
def test_many_tokens_are_staged(target, tmp_path):
    """More than a wave of tiles: the model has it that this pays where experts are many."""
    log = tmp_path / "log"
    double.in_new_process(__file__, target, "staged", MOE_CUDA_DOUBLE_LOG=str(log))
    events = [json.loads(line) for line in log.read_text().splitlines()]
    kernels = [e["kernel"] for e in events if e["event"] == "launch"]
    many, staged = ("router", "router_1") if target == "sm_80" else ("router_1", "router_2")
    assert [k for k in kernels if k.startswith("router")] == [many, staged]


def digest(target):
    """Of results with few tokens and many."""
    found = hashlib.sha256()
    for name in ("two", "f32"):
        for tokens in (3, 25, 70):
            for array in run(name, target, *arrays(name, tokens)):
                found.update(array.tobytes())
    return found.hexdigest()


@pytest.mark.parametrize("seed", ["1", "2", "3"])
@pytest.mark.parametrize("target", TARGETS)
def test_bits_do_not_depend_on_time(target, seed):
    found = double.in_new_process(__file__, target, MOE_CUDA_DOUBLE_SEED=seed)
    assert found.strip() == digest(target)


@pytest.mark.parametrize("target", TARGETS)
def test_one_launch_or_two(target, tmp_path):
    """One where a block has all tokens, two otherwise."""
    log = tmp_path / "log"
    double.in_new_process(__file__, target, MOE_CUDA_DOUBLE_LOG=str(log))
    events = [json.loads(line) for line in log.read_text().splitlines()]
    kernels = [e["kernel"] for e in events if e["event"] == "launch"]
    kernels = [k for k in kernels if k.startswith(("router", "route", "gate", "grouped"))]
    few, many = "router", "router" if target == "sm_80" else "router_1"
    place = "route_place"
    # A block has 16 tokens in a cluster, 32 otherwise; there are four multiprocessors. A cluster
    # has up to 64 if its products are of tensor cores.
    whole = "router_2"
    two = [few, few, many, place] if target == "sm_80" else [few, whole, many, place]
    four = [few, few, many, place] if target == "sm_80" else [few, many, many, place]
    assert kernels == two + four


if __name__ == "__main__":
    if sys.argv[2:] == ["staged"]:
        for count in (4 * 32, 4 * 32 + 1):  # on four multiprocessors
            run("staged", sys.argv[1], *arrays("staged", count))
    else:
        print(digest(sys.argv[1]))
