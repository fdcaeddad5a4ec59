"""The plan of a layer over several ranks: formulas against simulation, and against calls."""

from __future__ import annotations

import itertools
import json
import math
import re
from pathlib import Path

import moe
import moe.parallel
import numpy as np
import pytest
from moe.parallel_plan import (LayerShape, Link, Links, Routing, make_plan, simulate, tail_rows,
                               uniform_hit)
from moe.parallel_plan._placement import shares
from moe_testing import data, layers, ranks


def by_sizes(slots: int, experts: int = 256, top_k: int = 8, **options) -> LayerShape:
    return LayerShape.of_sizes(experts, top_k, 7168, 2048, slots, **options)


def blocks(experts: int, size: int) -> np.ndarray:
    """Which rank has which experts, ``[ranks, E]``."""
    return np.kron(np.eye(experts // size), np.ones(size))


def draw(random: np.random.Generator, tokens: int, odds: np.ndarray, top_k: int) -> np.ndarray:
    """Choices of tokens ``[T, E]``: independent ones, of which those with ``top_k`` are kept."""
    found, count = [], 0
    while count < tokens:
        chosen = random.random((4 * tokens, len(odds))) < odds / (1 + odds)
        found.append(chosen[chosen.sum(1) == top_k])
        count += len(found[-1])
    return np.concatenate(found)[:tokens]


def check_mean(got: np.ndarray, hits: np.ndarray) -> None:
    """Probabilities are those of simulated events ``[T, ...]``, within 5 standard deviations."""
    deviation = np.sqrt(got * (1 - got) / len(hits)) + 1e-9
    assert (np.abs(hits.mean(0) - got) < 5 * deviation).all(), (hits.mean(0), got)


# --------------------------------------------------------------------------
# Rows
# --------------------------------------------------------------------------


@pytest.mark.parametrize("experts, top_k, slots", [(8, 2, 4), (64, 6, 8), (64, 6, 60), (16, 16, 1)])
def test_uniform(experts, top_k, slots):
    random = data.rng("uniform", experts)
    chosen = random.random((20_000, experts)).argsort(1)[:, :top_k]
    check_mean(np.array(uniform_hit(experts, top_k, slots)), (chosen < slots).any(1))
    assert uniform_hit(experts, top_k, 0) == 0 and uniform_hit(experts, top_k, experts) == 1


def test_groups():
    random = data.rng("groups")
    routing = Routing.uniform(32, 4, (8, 3))
    groups = random.random((30_000, 8)).argsort(1)[:, :3]
    allowed = (np.arange(32) // 4 == groups[:, :, None]).any(1)
    scores = np.where(allowed, random.random((30_000, 32)), -1)
    chosen = scores.argsort(1)[:, -4:]
    # Ranks within a group, of one group, and across groups.
    held = np.stack([np.arange(32) < 2, (np.arange(32) >= 4) & (np.arange(32) < 8),
                     np.arange(32) % 5 == 0, np.arange(32) >= 10]).astype(float)
    check_mean(routing.hit(held), np.stack([held[i][chosen].any(1) for i in range(4)], 1))


@pytest.mark.parametrize("exponent", (0.5, 1.5))
def test_zipf(exponent):
    """All sets of experts, one by one; then a simulation of more experts."""
    routing = Routing.zipf(8, 3, exponent)
    p = routing._bernoulli()
    sets = [set(each) for each in itertools.combinations(range(8), 3)]
    weight = np.array([math.prod(p[e] if e in each else 1 - p[e] for e in range(8))
                       for each in sets])
    weight /= weight.sum()
    load = [sum(w for w, each in zip(weight, sets) if e in each) for e in range(8)]
    assert load == pytest.approx(routing.load, rel=1e-9)
    wanted = np.arange(1, 9) ** -exponent
    assert (routing.load[1:] / routing.load[1]).tolist() == pytest.approx(
        (wanted[1:] / wanted[1]).tolist())
    assert routing.load.max() <= 1 and routing.load.sum() == pytest.approx(3)
    held = np.array([[1, 1, 0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 0, .5, 0, .25]])
    expected = [1 - sum(w * math.prod(1 - row[e] for e in each) for w, each in zip(weight, sets))
                for row in held]
    assert routing.hit(held) == pytest.approx(expected, rel=1e-9)

    routing = Routing.zipf(32, 4, exponent)
    p = routing._bernoulli()
    is_open = p < 1
    odds = np.where(is_open, p / np.where(is_open, 1 - p, 1), 0)
    chosen = draw(data.rng("zipf"), 20_000, odds, 4 - int((~is_open).sum()))
    chosen[:, ~is_open] = True
    check_mean(routing.load, chosen)
    held = blocks(32, 8)
    check_mean(routing.hit(held), (chosen[:, None] & (held > 0)).any(2))


def test_tail():
    """Chernoff's exponent against the sums of binomial probabilities."""
    for tokens, hit, delta in ((50, 0.3, 1e-3), (400, 0.9, 1e-6), (1000, 0.02, 1e-9),
                               (7, 0.5, 0.1)):
        rows = tail_rows(tokens, hit, delta)
        tails = [0.0] * (tokens + 2)
        for r in range(tokens, -1, -1):
            tails[r] = tails[r + 1] + math.comb(tokens, r) * hit ** r * (1 - hit) ** (tokens - r)
        exact = next(r for r in range(tokens + 2) if tails[r] <= delta)
        assert exact <= rows <= tokens or rows == tokens
        assert rows <= exact + 0.35 * (exact - tokens * hit) + 1

        def divergence(r):
            share = r / tokens
            rest = (1 - share) * math.log((1 - share) / (1 - hit)) if share < 1 else 0
            return tokens * (share * math.log(share / hit) + rest)

        if rows < tokens:
            assert divergence(rows) >= math.log(1 / delta) > divergence(rows - 1)
    assert tail_rows(100, 0, 1e-6) == 0 and tail_rows(100, 1, 1e-6) == 100
    assert tail_rows(0, 0.5, 1e-6) == 0 and tail_rows(3, 0.5, 1e-6) == 3


def test_bound_and_tail_hold():
    """Calls of random tokens: none exceeds the bound, few the tail; means are met."""
    random = data.rng("calls")
    layer = by_sizes(4, 16, 3)
    plan = make_plan(layer, 4, Routing.uniform(16, 3), [40, 0, 25, 10], delta=0.05)
    received = np.stack([
        (random.random((75, 16)).argsort(1)[:, :3, None] // 4 == np.arange(4)).any(1).sum(0)
        for _ in range(2000)])
    assert plan.bound == 75 >= received.max()
    assert (received.max(1) > plan.tail).mean() <= plan.delta
    assert plan.tail < 75
    error = 5 * received.std(0) / math.sqrt(len(received))
    assert (np.abs(received.mean(0) - plan.received) < error).all()
    # The bound is attained: all tokens choose experts of one rank.
    ids = np.tile(np.array([[0, 1, 2]]), (75, 1))
    assert make_plan(layer, 4, Routing.recorded(ids, 16), [40, 0, 25, 10]).received[0] == 75


def test_choices_as_rows():
    """A row for each choice: as many as a token has experts on the rank."""
    plan = make_plan(by_sizes(2, 8, 4), 4, Routing.uniform(8, 4), 10, out="choice")
    assert plan.bound == 4 * 10 * 2
    assert plan.received == pytest.approx(np.full(4, 4 * 10 * 4 / 4))


def test_copies():
    """Tokens take copies in turn; what they reach is that of tokens, one by one."""
    table = np.array([[0, 1, 2], [0, 3, 4], [5, 1, 0], [6, 7, 4]])
    random = data.rng("copies")
    ids = random.random((60_000, 8)).argsort(1)[:, :3]
    for node_size in (1, 2):
        got = shares(Routing.uniform(8, 3), table, node_size)
        counted = shares(Routing.recorded(ids, 8), table, node_size)
        assert got.is_exact
        for ours, theirs in zip((got.hits, got.choices, got.nodes),
                                (counted.hits, counted.choices, counted.nodes)):
            assert ours == pytest.approx(theirs, abs=0.012)
        # A rank that has the expert sends none of its choices away.
        assert got.choices.sum(1) == pytest.approx(np.full(4, 3))


def test_bytes_are_conserved():
    table = np.array([[0, 1, 2], [0, 3, 4], [5, 1, 0], [6, 7, 4]])
    for given in (None, table):
        for rows in ("rank", "choice", "node"):
            plan = make_plan(by_sizes(3, 8, 3), 4, Routing.zipf(8, 3, 0.7), [5, 9, 0, 30],
                             node_size=2, table=given, out=rows, home=rows)
            for each in (plan.out, plan.home):
                assert each.network_sent.sum() == pytest.approx(each.network_received.sum())
                assert each.node_sent.sum() == pytest.approx(each.node_received.sum())
            # What goes out comes home.
            assert plan.out.network_sent / plan.layer.token_bytes == pytest.approx(
                plan.home.network_received / plan.layer.choice_bytes)


# --------------------------------------------------------------------------
# Calls of layers
# --------------------------------------------------------------------------

TABLE = np.array([[0, 1, 2, 3], [4, 5, 6, 0], [7, 1, 4, -1]], np.int32)
COUNTS = [40, 3, 61]


@pytest.mark.parametrize("name, option", (("deepseek_v3", ""), ("mixtral", ""),
                                          ("deepseek_v3", ",reduce=per_rank")))
def test_recorded_routes(name, option):
    """Rows, bytes and rounds are those of calls with the recorded routes."""
    inputs, weights = data.inputs_of(name, sum(COUNTS), "f32"), data.weights_of(name, "f32")
    ids = moe.compile(layers.text(name, "f32"), routes="record").layer(weights)(**inputs)[1]
    module = moe.compile(layers.text(name, "f32"), options=[f"--parallel=4:2{option}"])
    artifact, shape = module.path.read_bytes(), LayerShape.of_module(module)
    assert shape.home_rows == ("rank" if option else "choice")
    parts = ranks.split(inputs, COUNTS)
    hits, choices = (np.stack(each) for each in zip(*(
        (np.rint(found.hits[0] * count), np.rint(found.choices[0] * count))
        for rank, (of_rank, count) in enumerate(zip(np.split(ids, np.cumsum(COUNTS)[:-1]), COUNTS))
        for found in [shares(Routing.recorded(of_rank, 8), TABLE, 1, [rank])])))
    away = 1 - np.eye(3)
    home = hits if option else choices
    sent = (hits * away).sum(1) * shape.token_bytes + (home * away).sum(0) * shape.choice_bytes
    for limit in (0, 60_000, 50_000):
        def on_rank(communicator):
            group = moe.parallel.Group(communicator, memory_limit=limit, num_threads=1)
            layer = moe.load(artifact, group=group).layer(weights, table=TABLE)
            layer(**parts[group.rank])
            return layer.exchange

        found = ranks.run(3, on_rank)
        assert [each.rows_sent for each in found] == hits.sum(1).tolist()
        assert [each.rows_received for each in found] == hits.sum(0).tolist()
        assert [each.bytes_sent for each in found] == sent.tolist()
        rounds = [shape.rounds(COUNTS, rank, hits[rank].astype(int).tolist(),
                               hits[:, rank].astype(int).tolist(), limit)
                  for rank in range(3)] if limit else [1]
        assert {each.rounds for each in found} == {max(rounds)}
        assert not limit or max(rounds) > 1


@pytest.mark.parametrize("way", ("all_to_all", "peer"))
@pytest.mark.parametrize("name, option", (("deepseek_v3", ""), ("switch", ""),
                                          ("expert_choice", ""),
                                          ("deepseek_v3", ",reduce=per_rank")))
def test_memory(name, option, way):
    """The bound is what the layer says, for any number of tokens."""
    module = moe.compile(layers.text(name, "f32"), options=[f"--parallel=ranks=3{option}"])
    artifact, shape = module.path.read_bytes(), LayerShape.of_module(module)
    weights = data.weights_of(name, "f32")

    def on_rank(communicator):
        group = moe.parallel.Group(communicator, way=way)
        layer = moe.load(artifact, group=group).layer(weights)
        return layer.weight_bytes, [layer.workspace_bytes(tokens) for tokens in (1, 7, 300)]

    kept, bytes_of = ranks.run(3, on_rank)[0]
    assert bytes_of == [shape.memory(tokens, 3 * tokens, 3 * tokens, 3 * tokens, way).call
                        for tokens in (1, 7, 300)]
    # A bias of the router is read where it lies.
    bias = weights.get("e_score_correction_bias")
    assert shape.weights == kept + (0 if bias is None else bias.nbytes)


def test_way():
    """Which way rows should go, and why: bytes by hand."""
    links = Links("links", Link(1e-6, 1e9), Link(1e-5, 1e8), None, 1e9)
    some = LayerShape.of_sizes(64, 2, 100, 10, 16, "f32")  # few tokens go to a rank
    routing = Routing.uniform(64, 2)

    def way(layer, routing, **options):
        plan = make_plan(layer, 4, routing, 50, **options)
        assert plan.to_json()["way"] == dict(zip(("name", "reason"), plan.way()))
        assert ": ".join(plan.way()) in str(plan)
        return plan.way()

    assert way(some, routing, node_size=4)[0] == "peer"
    assert way(some, routing, node_size=4, memory_limit=2 ** 30)[0] == "all_to_all"
    name, reason = way(some, routing)
    hit = 1 - 48 * 47 / (64 * 63)
    assert name == "all_to_all" and f"{hit:.1%} of all tokens" in reason
    # 2 experts a rank of 8, of which a token takes 7: every rank has one.
    every = LayerShape.of_sizes(8, 7, 100, 10, 2, "f32")
    assert way(every, Routing.uniform(8, 7))[0] == "all_gather"
    name, reason = way(every, Routing.uniform(8, 7), links=links)
    sent = 50 * 3 * every.token_bytes
    assert name == "all_gather"
    assert f"{1e6 * (1e-5 + sent / 1e8 + 2 * sent / 1e9):.1f} us, those" in reason
    assert f"unpacked {1e6 * (1e-5 + sent / 1e8):.1f} us" in reason
    assert way(some, routing, links=links)[0] == "all_to_all"


def test_agreement():
    """Words as the runtime has them: where rows are read, it also tells where three values lie."""
    layer, routing = LayerShape.of_sizes(64, 2, 100, 10, 16, "f32"), Routing.uniform(64, 2)
    header = Path(__file__).parents[3] / "runtime/src/parallel/group.h"

    def number(name: str) -> int:
        return int(re.search(rf"static constexpr \w+ {name} = (\d+);", header.read_text())[1])

    words = {1: number("count"), 4: number("count") + number("mostCarried") * number("words")}
    for node_size, each in words.items():
        plan = make_plan(layer, 4, routing, 50, node_size=node_size)
        assert plan.agreement_bytes == 8 * each * 3


def test_sizes_are_those_of_a_layer():
    """A layer by its sizes sends what a compiled one of these sizes sends."""
    module = moe.compile(layers.text("mixtral", "f32"), options=["--parallel=ranks=2"])
    compiled = LayerShape.of_module(module)
    i, h = next(each["shape"][1:] for each in compiled.program["arguments"]
                if each["name"] == "gate_proj")
    sizes = LayerShape.of_sizes(8, 2, h, i, 4, "f32")
    assert (sizes.token_bytes, sizes.choice_bytes) == (compiled.token_bytes, compiled.choice_bytes)
    assert sizes.expert_bytes == compiled.expert_bytes
    ours, theirs = (each.memory(50, 100, 70, 80) for each in (sizes, compiled))
    assert ours.received == theirs.received and ours.packed == theirs.packed


# --------------------------------------------------------------------------
# Times
# --------------------------------------------------------------------------

LINKS = Path(__file__).parents[3] / "docs" / "links"
LOW_LATENCY, HIGH_THROUGHPUT = (LINKS / f"h800-{kind}.json" for kind in
                                ("low-latency", "high-throughput"))


def seconds(scales) -> tuple[float, float]:
    (scale,) = scales
    return tuple(max(scale.times[way].values()) for way in ("out", "home"))


def low_latency_rows():
    """128 tokens of 7168 a rank, 8 choices, a row for each: seconds of out and home."""
    links = Links.read(LOW_LATENCY)
    # DeepEP, docs/legacy.md: H800, fp8 with scales of 128 out, bf16 home, us.
    fp8 = lambda slots: by_sizes(slots, token_bytes=7168 + 4 * 56, choice_bytes=14336)  # noqa: E731
    bf16 = lambda slots: by_sizes(slots, token_bytes=14336, choice_bytes=14336)  # noqa: E731
    tables = [(fp8, size, out * 1e-6, home * 1e-6) for size, out, home in
              ((16, 118, 195), (32, 155, 273), (64, 173, 314), (128, 192, 369), (256, 194, 360))]
    # NCCL EP 0.1, low latency: H100, bf16 both ways, GB/s of all rows.
    count = 128 * 8 * 14336
    tables += [(bf16, size, count / out / 1e9, count / home / 1e9) for size, out, home in
               ((16, 76.7, 73.0), (32, 53.6, 50.0), (64, 48.8, 43.8))]
    for layer, size, out, home in tables:
        ours = seconds(simulate(layer, [size], Routing.uniform(256, 8), 128, links, out="choice",
                                home="choice"))
        yield from zip(ours, (out, home))


def high_throughput_rows():
    """Tokens of 7168 in fp8 once a node out, in bf16 home.

    GB/s are of rows to all nodes with a choice, the own one among them.
    """
    links = Links.read(HIGH_THROUGHPUT)
    # Version 2 says nothing of NVLink beside a network; that of a H100 in its data sheet.
    fast = Links(links.name, Link(links.node.alpha, 450e9), links.network)
    for wires, tokens, kept, table in (
            (links, 4096, 4, ((16, 43, 43), (32, 58, 57), (64, 51, 50))),
            (fast, 8192, 8, ((16, 90, 81), (32, 61, 61), (16, 90, 91)))):
        for size, out, home in table:
            nodes = size // 8
            routing = Routing.uniform(256, 8, (nodes, min(kept, nodes)))
            scales = simulate(lambda slots: by_sizes(slots, token_bytes=7168, choice_bytes=14336),
                              [size], routing, tokens, wires, out="node", home="node")
            held = np.kron(np.eye(nodes), np.ones(256 // nodes))
            reached = routing.hit(held).sum() * tokens
            theirs = reached * 7168 / out / 1e9, reached * 14336 / home / 1e9
            yield from zip(seconds(scales), theirs)


def test_published_tables():
    """DeepEP's and NCCL EP's rows from 16 ranks up."""
    low, high = ([ours / theirs - 1 for ours, theirs in rows] for rows in
                 (low_latency_rows(), high_throughput_rows()))
    assert len(low) == 16 and len(high) == 12
    for errors in (low, high, low + high):
        assert np.abs(errors).max() <= 0.15, np.round(errors, 3)
        assert np.median(np.abs(errors)) <= 0.05, np.round(errors, 3)


def test_times():
    links = Links("links", Link(1e-5, 1e9), Link(3e-5, 1e8), 1e12, 1e11)
    plan = make_plan(by_sizes(4, 16, 2), 4, Routing.uniform(16, 2), 100, node_size=2, links=links)
    times = plan.seconds()
    assert times["out"]["network"] == pytest.approx(3e-5 + plan.out.network_sent.max() / 1e8)
    assert times["home"]["node"] == pytest.approx(1e-5 + plan.home.node_sent.max() / 1e9)
    assert times["layer"] == pytest.approx(
        max(times["out"].values()) + max(times["home"].values()) + times["compute"])
    assert times["compute"] == pytest.approx(
        max(200 * 6 * 7168 * 2048 / 1e12, 4 * 6 * 7168 * 2048 / 1e11))
    assert times["overlapped"] <= times["layer"]
    # Without bytes there is no start, either.
    alone = make_plan(by_sizes(16, 16, 2), 1, Routing.uniform(16, 2), 100, links=links)
    assert alone.seconds()["exchange"] == 0


def test_simulation_of_many_ranks():
    """The same numbers as the plan; copies where ranks outnumber experts."""
    links = Links.read(LOW_LATENCY)
    layer = lambda slots: by_sizes(slots, 64, 4)  # noqa: E731
    scales = simulate(layer, [1, 8, 64, 1024, 4096], Routing.uniform(64, 4), 32, links)
    plan = make_plan(layer(1), 64, Routing.uniform(64, 4), 32, node_size=8)
    assert scales[2].plan.out.most("network") == pytest.approx(plan.out.most("network"))
    for scale in scales:
        assert scale.plan.computed == pytest.approx(np.full(len(scale.plan.computed), 32 * 4))
        json.dumps(scale.to_json())
    assert [len(scale.plan.table) for scale in scales] == [1, 8, 64, 1024, 4096]
    with pytest.raises(moe.MoEError, match="expected at most a rank for each of 64 experts"):
        simulate(layer, [128], Routing.zipf(64, 4, 1.0), 32, links)
    with pytest.raises(moe.MoEError, match="100 ranks in nodes of 8, expected a multiple"):
        simulate(layer, [100], Routing.uniform(64, 4), 32, links)
