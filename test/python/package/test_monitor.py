"""What a monitor counts, against numpy and loops in Python."""

from __future__ import annotations

import statistics
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from moe_testing import data, layers
from moe_testing.compiled_layers import layer, module

import moe

ROOT = Path(__file__).resolve().parents[3]
E, H, I, K = layers.E, layers.H, layers.I, 2

pytestmark = pytest.mark.usefixtures("compiled")


def routes(tokens, experts, top_k, seed=0):
    """Ids, of which some are no expert, and weights."""
    generator = np.random.default_rng(seed)
    ids = generator.integers(-1, experts + 1, (tokens, top_k))
    return ids, generator.random((tokens, top_k)).astype(np.float32)


def naive(calls, experts):
    """The load, and the means of the largest weight and of its distance to the second one."""
    load, largest, margins = [0] * experts, [], []
    for ids, weights in calls:
        for chosen, factors in zip(ids.tolist(), weights.tolist()):
            kept = sorted((w for i, w in zip(chosen, factors) if 0 <= i < experts), reverse=True)
            largest += kept[:1]
            if len(kept) > 1:
                margins.append(kept[0] - kept[1])
            for i in chosen:
                if 0 <= i < experts:
                    load[i] += 1
    return load, largest and statistics.mean(largest), margins and statistics.mean(margins)


# -- the numbers of a load ------------------------------------------------------


@pytest.mark.parametrize("load", [
    [5] * 8, [0, 0, 7, 0], [1, 2, 3, 4], [3], [10 ** 15, 1, 0, 0], [0, 10 ** 12, 10 ** 12 + 1]])
def test_entropy_and_variation(load):
    torch = pytest.importorskip("torch")
    shares = torch.distributions.Categorical(torch.tensor(load, dtype=torch.float64))
    assert moe.monitor.entropy(np.array(load)) == pytest.approx(float(shares.entropy()), rel=1e-14,
                                                                abs=1e-14)
    expected = statistics.pstdev(load) / statistics.mean(load)
    assert moe.monitor.variation(np.array(load)) == pytest.approx(expected, rel=1e-14)


def test_numbers_of_known_loads():
    assert moe.monitor.entropy(np.full(8, 3)) == pytest.approx(np.log(8))
    assert moe.monitor.variation(np.full(8, 3)) == 0
    one = np.array([0, 9, 0, 0])
    assert str(moe.monitor.entropy(one)) == "0.0"
    assert moe.monitor.variation(one) == pytest.approx(np.sqrt(3))
    assert moe.monitor.entropy(np.zeros(4)) is None and moe.monitor.variation(np.zeros(4)) is None


# -- compiled layers ------------------------------------------------------------


def chosen(x):
    """The experts that the router of the layer "mixtral" chooses."""
    logits = x.astype(np.float64) @ data.weights_of("mixtral")["router"].T.astype(np.float64)
    return np.argsort(-logits, axis=1)[:, :K]


def test_layer():
    mixtral = module("mixtral").layer(data.weights_of("mixtral"))
    mixtral(data.inputs_of("mixtral", 5)["x"])  # before it is watched
    with moe.monitor.watch(mixtral) as monitor:
        assert monitor.last is None
        x, more = (data.inputs_of("mixtral", n)["x"] for n in (33, 7))
        mixtral(x)
        mixtral(more)
        record = monitor.step()
        assert record is monitor.last and (record.step, record.steps, record.tokens) == (1, 1, 40)
        its = record.layers["layer"]
        expected = np.bincount(chosen(np.concatenate([x, more])).ravel(), minlength=E)
        np.testing.assert_array_equal(its.load, expected)
        assert (its.calls, its.tokens, its.top_k, its.choices, its.dropped) == (2, 40, 2, 80, 0)
        assert its.confidence is None and its.margin is None
        assert its.entropy == moe.monitor.entropy(expected)
        mixtral(more)
        its = monitor.step().layers["layer"]
        np.testing.assert_array_equal(its.load, np.bincount(chosen(more).ravel(), minlength=E))
        mixtral.reset_statistics()
        mixtral(x)
        its = monitor.step().layers["layer"]
        assert (its.calls, its.tokens) == (1, 33)
        its = monitor.step().layers["layer"]
        assert (its.calls, its.tokens, its.entropy, its.variation) == (0, 0, None, None)


def test_weights_that_change():
    mixtral = module("mixtral").layer(data.weights_of("mixtral"))
    x = data.inputs_of("mixtral", 9)["x"]
    with moe.monitor.watch(mixtral) as monitor:
        mixtral(x)
        mixtral.update(data.weights_of("mixtral"))
        mixtral(x)
        assert monitor.step().layers["layer"].choices == 2 * 9 * K


def test_drops():
    inputs, weights = data.skewed("switch", 33, expert=6)
    bound = module("switch").layer(weights)
    with moe.monitor.watch({"a": bound}) as monitor:
        bound(**inputs)
        record = monitor.step()
        its = record.layers["a"]
        assert (its.choices, its.dropped) == (33, 28)
        np.testing.assert_array_equal(its.load, [0, 0, 0, 0, 0, 0, 5, 0])
        # The code counts choices, some of which may have no expert.
        assert its.tokens is None and record.tokens is None and record.tokens_per_second is None
        bound(**inputs)
        record = monitor.step(tokens=33)
        assert record.tokens == 33 and record.tokens_per_second == 33 / record.seconds


def test_dead_experts():
    inputs, weights = data.skewed("switch", 33, expert=6)
    skewed, even = (module("switch").layer(w) for w in (weights, data.weights_of("switch")))
    with moe.monitor.watch(skewed, dead_after=3) as monitor:
        for _ in range(2):
            skewed(**inputs)
            assert monitor.step().layers["layer"].dead == ()
        for _ in range(5):  # a step in which a layer does not run says nothing
            assert monitor.step().layers["layer"].dead == ()
        skewed(**inputs)
        assert monitor.step().layers["layer"].dead == (0, 1, 2, 3, 4, 5, 7)
        skewed.update(data.weights_of("switch"))
        rows = data.inputs_of("switch", 64)
        skewed(**rows)
        even(**rows)
        alive = even.statistics()[0].tokens_per_expert > 0
        assert alive.sum() > 1
        its = monitor.step().layers["layer"]
        assert its.dead == tuple(e for e in range(E) if e != 6 and not alive[e])


def test_dead_experts_of_several_steps():
    """A record of n steps counts n of them."""
    with moe.monitor.watch({}, every=2, dead_after=4) as monitor:
        for _ in range(3):
            monitor.add("a", [[0]], num_experts=2)
            assert monitor.step() is None
            monitor.step()
        assert monitor.last.layers["a"].dead == (1,) and monitor.last.steps == 2


def test_several_dispatches():
    bound = module("hierarchical").layer(data.weights_of("hierarchical"))
    with pytest.warns(UserWarning, match="block: FLOPs and bytes are not known: the plan of"):
        monitor = moe.monitor.watch({"block": bound})
    bound(**data.inputs_of("hierarchical", 12))
    found = monitor.step().layers
    assert list(found) == ["block/0", "block/1"]
    for its, counted in zip(found.values(), bound.statistics()):
        np.testing.assert_array_equal(its.load, counted.tokens_per_expert)
        assert its.choices == counted.choices > 0 and its.tokens is None


def test_what_cannot_be_watched():
    with pytest.raises(moe.MoEError, match="cannot watch a str, expected a moe.Layer, a module"):
        moe.monitor.watch("model")
    same = moe.compile("func.func @same(%x: tensor<?x2xf32> {moe.role = \"input\"}) -> "
                       "tensor<?x2xf32> {\n  return %x : tensor<?x2xf32>\n}\n").layer()
    with pytest.raises(moe.MoEError, match="a: <moe.Layer same.*> has no dispatch"):
        moe.monitor.watch({"a": same})
    silent = module("mixtral").layer(data.weights_of("mixtral"))
    silent.enable_statistics(False)
    with pytest.raises(moe.MoEError, match="layer: the statistics of the layer are disabled"):
        moe.monitor.watch(silent)
    for options, message in (({"every": 0}, "every is 0, expected an integer of at least 1"),
                             ({"dead_after": 1.5}, "dead_after is 1.5, expected"),
                             ({"watts": -1}, "watts is -1, expected a number of at least 0"),
                             ({"price_per_hour": float("nan")}, "price_per_hour is nan")):
        with pytest.raises(moe.MoEError, match=message):
            moe.monitor.watch({}, **options)
    monitor = moe.monitor.watch({})
    with pytest.raises(moe.MoEError, match="tokens is -3"):
        monitor.step(tokens=-3)
    monitor.close()
    monitor.close()
    with pytest.raises(moe.MoEError, match="the monitor is closed"):
        monitor.step()
    with pytest.raises(moe.MoEError, match="the monitor is closed"):
        monitor.add("a", [[0]], num_experts=2)


# -- routes that somebody adds --------------------------------------------------


@pytest.mark.parametrize("shapes", [[(33, 16, 4)], [(5, 3, 1), (8, 3, 1)], [(0, 4, 2)],
                                    [(2, 200, 8), (70, 200, 8), (9, 200, 3)]])
def test_routes(shapes):
    calls = [routes(*shape, seed=i) for i, shape in enumerate(shapes)]
    experts = shapes[0][1]
    with moe.monitor.watch({}) as monitor:
        for ids, weights in calls:
            monitor.add("a", ids, weights, num_experts=experts)
            monitor.add("b", ids.astype(np.int32), num_experts=experts)
        found = monitor.step().layers
    load, confidence, margin = naive(calls, experts)
    for its in found.values():
        np.testing.assert_array_equal(its.load, load)
        assert its.calls == len(calls) and its.tokens == sum(shape[0] for shape in shapes)
        assert its.choices == sum(load) and its.flops is None
    assert found["a"].confidence == (pytest.approx(confidence, rel=1e-12) if confidence else None)
    assert found["a"].margin == (pytest.approx(margin, rel=1e-12) if margin else None)
    assert found["b"].confidence is None and found["b"].margin is None


def test_routes_of_torch():
    torch = pytest.importorskip("torch")
    ids, weights = routes(20, 6, 3)
    weights = torch.from_numpy(weights).to(torch.bfloat16).requires_grad_(True)
    with moe.monitor.watch({}) as monitor:
        monitor.add("a", torch.from_numpy(ids), weights, num_experts=6)
        ids[:] = 0  # the monitor has its own
        its = monitor.step().layers["a"]
    load, confidence, margin = naive([(routes(20, 6, 3)[0], weights.float().detach().numpy())], 6)
    np.testing.assert_array_equal(its.load, load)
    assert its.confidence == pytest.approx(confidence) and its.margin == pytest.approx(margin)


def test_routes_that_a_layer_returns():
    recording = moe.compile(layers.text("mixtral"), routes="record").layer(
        data.weights_of("mixtral"))
    x = data.inputs_of("mixtral", 33)["x"]
    with moe.monitor.watch({"counted": recording}) as monitor:
        _, ids, weights = recording(x)
        monitor.add("added", ids, weights, num_experts=E)
        found = monitor.step().layers
    np.testing.assert_array_equal(found["added"].load, found["counted"].load)
    assert found["added"].confidence == pytest.approx(weights.max(axis=1).mean())
    assert found["added"].margin == pytest.approx(np.abs(weights[:, 0] - weights[:, 1]).mean())


def test_weights_that_are_not_finite():
    weights = np.array([[0.5, 0.25], [np.nan, 1.0]], np.float32)
    with moe.monitor.watch({}) as monitor:
        monitor.add("a", [[0, 1], [1, 0]], weights, num_experts=2)
        its = monitor.step().layers["a"]
    assert np.isnan(its.confidence) and its.to_json()["confidence"] == "nan"


def test_more_than_may_wait(monkeypatch):
    monkeypatch.setattr("moe.monitor._routes.MOST_PENDING", 50)
    calls = [routes(7, 5, 2, seed) for seed in range(20)]
    with moe.monitor.watch({}) as monitor:
        for ids, weights in calls:
            monitor.add("a", ids, weights, num_experts=5)
        its = monitor.step().layers["a"]
    load, confidence, margin = naive(calls, 5)
    assert its.load.tolist() == load and its.calls == 20
    assert (its.confidence, its.margin) == (pytest.approx(confidence), pytest.approx(margin))


@pytest.mark.parametrize("ids, weights, message", [
    ([1, 2], None, r"expected ids and weights \[tokens, choices\], got \[2\]"),
    ([[1, 2]], [[0.5]], r"got \[1, 2\] and \[1, 1\]"),
    ([[0.5]], None, "ids are float64, expected integers"),
    ([[1]], [["x"]], "weights are <U1, expected floats")])
def test_bad_routes(ids, weights, message):
    with moe.monitor.watch({}) as monitor, pytest.raises(moe.MoEError, match=message):
        monitor.add("a", ids, weights, num_experts=4)


def test_bad_numbers_of_experts():
    with moe.monitor.watch({}) as monitor:
        with pytest.raises(moe.MoEError, match="num_experts is 0"):
            monitor.add("a", [[0]], num_experts=0)
        monitor.add("a", [[0]], num_experts=4)
        with pytest.raises(moe.MoEError, match="a: num_experts is 5, before it was 4"):
            monitor.add("a", [[0]], num_experts=5)


# -- steps ----------------------------------------------------------------------


def test_every():
    seen = []
    with moe.monitor.watch({}, to=seen.append, every=3) as monitor:
        for step in range(1, 8):
            monitor.add("a", [[step % 4]], num_experts=4)
            assert (monitor.step(tokens=step) is None) == bool(step % 3)
    assert [(r.step, r.steps, r.tokens) for r in seen] == [(3, 3, 6), (6, 3, 15), (7, 1, 7)]
    assert [r.layers["a"].load.tolist() for r in seen] == [[0, 1, 1, 1], [1, 1, 1, 0],
                                                           [0, 0, 0, 1]]


def test_tokens_that_differ():
    """Of layers with other numbers of tokens, nobody knows those of the model."""
    with moe.monitor.watch({}) as monitor:
        monitor.add("a", [[0], [1]], num_experts=2)
        monitor.add("b", [[0]], num_experts=2)
        assert monitor.step().tokens is None


def test_price_and_power():
    with moe.monitor.watch({}, price_per_hour=3.6, watts=250) as monitor:
        assert monitor.step().cost_per_million_tokens is None
        record = monitor.step(tokens=500)
    assert record.cost_per_million_tokens == pytest.approx(0.001 * record.seconds * 2000)
    assert record.joules_per_million_tokens == pytest.approx(250 * record.seconds * 2000)
    with moe.monitor.watch({}) as monitor:
        record = monitor.step(tokens=500)
    assert record.cost_per_million_tokens is None and record.joules_per_million_tokens is None


def test_threads():
    """Nothing is lost, or counted twice, while layers run and steps end in several threads."""
    mine, seen = module("mixtral").layer(data.weights_of("mixtral")), []
    x, (ids, weights) = data.inputs_of("mixtral", 9)["x"], routes(9, 4, 2)
    with moe.monitor.watch(mine, to=seen.append) as monitor:
        def work(_):
            for _ in range(30):
                mine(x)
                monitor.add("added", ids, weights, num_experts=4)
                monitor.step()

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
    assert [record.step for record in seen] == list(range(1, 121))
    assert sum(record.layers["layer"].calls for record in seen) == 120
    added = [r.layers["added"] for r in seen if "added" in r.layers]
    assert sum(its.calls for its in added) == 120
    np.testing.assert_array_equal(sum(its.load for its in added),
                                  120 * np.array(naive([(ids, weights)], 4)[0]))


# -- work -----------------------------------------------------------------------


def test_work():
    """The formulas of a layer with a router and gated experts."""
    mixtral = module("mixtral").layer(data.weights_of("mixtral"))
    assert moe.monitor.Work.of(mixtral) == moe.monitor.Work(
        flops_per_row=2 * 3 * H * I, flops_per_token=2 * H * E, bytes_per_row=2 * H * 4,
        bytes_per_expert=3 * H * I * 4, bytes_per_token=2 * H * 4, bytes_per_call=E * H * 4)
    with moe.monitor.watch(mixtral) as monitor:
        mixtral(data.inputs_of("mixtral", 3)["x"])
        its = monitor.step().layers["layer"]
        active = np.count_nonzero(its.load)
        assert its.flops == 3 * (K * 2 * 3 * H * I + 2 * H * E)
        assert its.bytes == (E * H + active * 3 * H * I + 3 * 2 * H + 3 * K * 2 * H) * 4
        for _ in range(2):
            mixtral(data.inputs_of("mixtral", 3)["x"])
        record = monitor.step()
        # In which of several calls an expert had rows is not known.
        assert record.flops == 2 * its.flops and record.bytes is None


def test_work_in_the_plan():
    """What the plan has for more tokens follows from the formula."""
    from moe._compile import plan

    compiled = module("qwen3_moe", "bf16")
    work = moe.monitor.Work.of(compiled.layer(data.weights_of("qwen3_moe", "bf16")))
    point = plan(compiled, "64:64")["functions"][0]["at"][-1]
    dispatch, = point["dispatches"]
    assert work.flops(1, 64, dispatch["rows"]) == point["flops"]
    assert work.bytes(1, 64, dispatch["rows"], dispatch["expected_active_experts"]) == (
        pytest.approx(point["bytes"], rel=1e-12))


def test_work_that_is_not_known(tmp_path):
    moe.compile(layers.text("mixtral"), output=tmp_path / "layer.moe")
    loaded = moe.load(tmp_path / "layer.moe").layer(data.weights_of("mixtral"))
    with pytest.raises(moe.MoEError, match="was loaded, and its source is not known"):
        moe.monitor.Work.of(loaded)
    with moe.monitor.watch(loaded) as monitor:
        loaded(data.inputs_of("mixtral", 3)["x"])
        record = monitor.step()
    assert record.flops is None and "flops" not in record.to_json()["layers"]["layer"]
    source = tmp_path / "layer.mlir"
    source.write_text(layers.text("mixtral"))
    mine = moe.compile(source).layer(data.weights_of("mixtral"))
    assert moe.monitor.Work.of(mine) == moe.monitor.Work.of(layer("mixtral"))
    source.write_text(layers.text("qwen3_moe"))
    with pytest.raises(moe.MoEError, match="has changed since it was compiled"):
        moe.monitor.Work.of(mine)
    with pytest.raises(moe.MoEError, match="flops_per_row is -1, expected an integer"):
        moe.monitor.Work(flops_per_row=-1)


# -- the package ----------------------------------------------------------------


def test_the_wheel_has_every_package():
    project = tomllib.loads((ROOT / "python" / "pyproject.toml").read_text())
    folders = {".".join(path.parent.relative_to(ROOT / "python").parts)
               for path in (ROOT / "python" / "moe").rglob("__init__.py")}
    assert set(project["tool"]["setuptools"]["packages"]) == folders
