"""Placements of experts, the files of a plan, and its command."""

from __future__ import annotations

import json

import moe
import numpy as np
import pytest
from moe.parallel_plan import (Links, Routing, balance, check_table, make_plan, place, read_record,
                               read_routing, read_table, write_table)
from moe.parallel_plan.__main__ import main
from moe_testing import compiled_layers, data, layers, ranks

# Kind of load, its parameter, experts, ranks, slots, and what EPLB's rebalance_experts
# (deepseek-ai/EPLB d52c72d) leaves on the fullest rank over the mean: measured with loads_of.
LOADS = [
    ("zipf", 0.5, 128, 8, 16, 1.052341),
    ("zipf", 0.5, 256, 32, 9, 1.001857),
    ("zipf", 1.0, 256, 32, 9, 1.006196),
    ("zipf", 0.8, 128, 8, 18, 1.000401),
    ("zipf", 0.5, 256, 64, 5, 1.005734),
    ("zipf", 1.2, 64, 8, 10, 1.000915),
    ("zipf", 0.3, 60, 4, 15, 1.012977),
    ("zipf", 0.3, 384, 64, 7, 1.005156),
    ("zipf", 0.7, 896, 128, 8, 1.002235),
    ("zipf", 0.9, 32, 8, 5, 1.004443),
    ("zipf", 0.6, 160, 20, 9, 1.000958),
    ("zipf", 1.0, 16, 4, 6, 1.001477),
    ("lognormal", 1.0, 256, 32, 9, 1.006319),
    ("lognormal", 1.0, 64, 4, 17, 1.000558),
    ("lognormal", 0.5, 128, 16, 8, 1.017649),
    ("lognormal", 2.0, 128, 16, 10, 1.000779),
    ("lognormal", 0.3, 896, 64, 14, 1.006776),
    ("lognormal", 1.5, 256, 8, 40, 1.000094),
    ("lognormal", 0.8, 8, 4, 3, 1.011701),
    ("lognormal", 1.0, 160, 20, 8, 1.037642),
]


def load_of(index: int) -> np.ndarray:
    """A load of a million choices, by a generator whose numbers numpy never changes."""
    kind, number, experts, *_ = LOADS[index]
    random = np.random.RandomState(index)
    load = (random.permutation(np.arange(1, experts + 1) ** -number) if kind == "zipf"
            else np.exp(number * random.standard_normal(experts)))
    return np.round(load / load.sum() * 1e6).astype(np.int64)


@pytest.mark.parametrize("index", range(len(LOADS)))
def test_balance(index):
    _, _, experts, size, slots, theirs = LOADS[index]
    load = load_of(index)
    table = place(load, size, slots)
    check_table(table, experts, size)
    assert table.shape == (size, slots) and table.dtype == np.int32
    # By hand: an expert's rows, shared by its ranks.
    sums = [sum(load[e] / (table == e).sum() for e in row if e >= 0) for row in table]
    assert max(sums) / (load.sum() / size) == pytest.approx(balance(table, load))
    assert balance(table, load) <= theirs + 1e-6
    batch = np.random.RandomState(100 + index).multinomial(1_000_000, load / load.sum())
    assert balance(table, batch) <= 1.03


def test_places_any_load():
    """Every expert somewhere, none twice on a rank, also where slots or loads are odd."""
    random = data.rng("place")
    for _ in range(100):
        experts = int(random.integers(1, 24))
        size = int(random.integers(1, experts + 1))
        slots = -(-experts // size) + int(random.integers(0, 4))
        replicas = [None, 1, 2, 3][random.integers(0, 4)]
        load = random.multinomial(1000, random.dirichlet(np.full(experts, 0.2)))
        table = place(load, size, slots, replicas)
        check_table(table, experts, size)
        assert np.bincount(table[table >= 0]).max() <= (replicas or size)
    # No slot to spare, and the last copy only fits after a move.
    assert sorted(place(np.array([8, 1, 1]), 2, 2).ravel().tolist()) == [0, 0, 1, 2]
    with pytest.raises(moe.MoEError, match="2 ranks with 3 slots hold 6 experts, expected at "
                       "least 7"):
        place(np.ones(7), 2, 3)
    with pytest.raises(moe.MoEError, match="at most a rank for each of 3 experts, got 4 ranks"):
        place(np.ones(3), 4, 3)


def test_a_layer_takes_it():
    """A table from recorded routes runs, with the bits of one rank."""
    name, size, slots = "deepseek_v3", 3, 4
    inputs, weights = data.inputs_of(name, 50, "f32"), data.weights_of(name, "f32")
    ids = moe.compile(layers.text(name, "f32"), routes="record").layer(weights)(**inputs)[1]
    table = place(np.bincount(ids.ravel(), minlength=8), size, slots)
    copies = int(np.bincount(table[table >= 0]).max())
    assert copies > 1
    artifact = moe.compile(layers.text(name, "f32"),
                           options=[f"--parallel={slots}:{copies}"]).path.read_bytes()
    got = ranks.call(lambda group: moe.load(artifact, group=group), weights, inputs, [20, 0, 30],
                     table)
    expected = compiled_layers.layer(name, "f32")(**inputs)
    assert (data.bits(got[0]) == data.bits(expected)).all()


# --------------------------------------------------------------------------
# Files
# --------------------------------------------------------------------------

MOE_RUN = {"format": 1, "dispatches": [{"num_experts": 4, "top_k": 2, "choices": 20, "dropped": 0,
                                        "tokens_per_expert": [10, 6, 4, 0]}]}


def written(folder, name, content):
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_records(tmp_path):
    ids = np.array([[0, 1], [0, 2], [-1, 0], [1, 0]], np.int32)
    counts = [4, 2, 1, 0]
    np.save(tmp_path / "ids.npy", ids)
    np.savez(tmp_path / "routes.npz", **{"model.layers.0/0/ids": ids[:2],
                                        "model.layers.0/0/weights": ids[:2] * 0.5,
                                        "model.layers.0/1/ids": ids[2:],
                                        "model.layers.0/1/weights": ids[2:] * 0.5})
    monitor = moe.monitor.watch({}, str(tmp_path / "load.jsonl"))
    for part in (ids[:2], ids[2:]):
        monitor.add("experts", part, num_experts=4)
        monitor.step()
    monitor.close()
    for name in ("ids.npy", "routes.npz", "load.jsonl",
                 written(tmp_path, "list.json", counts), written(tmp_path, "ids.json",
                                                                  ids.tolist())):
        assert read_record(tmp_path / name).load_of(4).tolist() == counts, name
    two = written(tmp_path, "two.jsonl", '{"layers": {"a": {"load": [1, 2]}, "b": {"load": [3]}}}\n'
                  '{"layers": {"a": {"load": [4, 5], "top_k": 2}}}')
    assert read_record(two, name="a").load_of().tolist() == [5, 7]
    assert read_record(two, name="a").top_k == 2 and read_record(two, name="b").experts == 1
    run = read_record(written(tmp_path, "run.json", MOE_RUN))
    assert run.load_of().tolist() == [10, 6, 4, 0]
    # Experts 0 to 2 in proportion, as the compiler takes them.
    assert run.routing(4, 2).load == pytest.approx([1, 0.6, 0.4, 0])
    recorded = read_routing(f"histogram:{tmp_path}/ids.npy", 4, 2)
    assert recorded.load == pytest.approx([1, 0.5, 0.25, 0])


@pytest.mark.parametrize("name, content, message", [
    ("a.json", "{", "expected JSON"),
    ("a.json", "[" * 100_000, "expected JSON"),
    ("a.json", "\x00", "expected JSON"),
    ("a.json", {}, "expected an object with 'format' 1"),
    ("a.json", {"format": 1, "dispatches": []}, "has 0 dispatches, expected one with number 0"),
    ("a.json", {"format": 1, "dispatches": [3]}, "dispatch 0: expected 'num_experts'"),
    ("a.json", {"format": 1, "dispatches": [{**MOE_RUN["dispatches"][0], "dropped": 3}]},
     "expected a routing without drops, got 3"),
    ("a.json", {"format": 1, "dispatches": [{**MOE_RUN["dispatches"][0], "num_experts": 5}]},
     "one integer of at least 0 for each of 5 experts"),
    ("a.json", {"format": 1, "dispatches": [{**MOE_RUN["dispatches"][0], "top_k": True}]},
     "expected 'num_experts'"),
    ("a.json", [1, -1], "expected an object of moe-run, a list"),
    ("a.json", [1, 2.5], "expected an object of moe-run, a list"),
    ("a.json", [[0, 1], [0]], "expected an object of moe-run, a list"),
    ("a.json", "NaN", "expected an object of moe-run, a list"),
    ("a.json", [0, 0, 0, 0], "expected counts of at least 0, one of them more"),
    ("a.json", [1, 2, 3], "is of another layer: it has 3 experts and top_k None, expected 4 and 2"),
    ("a.json", [[0, 4], [1, 2]], "routes have expert 4, expected 0 to 3 or -1"),
    ("a.json", [[0, 1, 2]], "is of another layer: it has None experts and top_k 3"),
    ("a.jsonl", "{}", "line 1: expected a record of moe.monitor"),
    ("a.jsonl", "", "expected at least one record"),
    ("a.jsonl", '{"layers": {"a": {"load": [1]}}}\n{"layers": {"a": {"load": [1, 2]}}}',
     "line 2: layer 'a': expected 'load'"),
    ("a.jsonl", '{"layers": {"a": {"load": [1]}, "b": {"load": [1]}}}',
     "expected the name of a layer, one of 'a', 'b'"),
    ("a.npy", "no array", "expected an array of numpy"),
    ("a.npz", "no array", "expected an array of numpy"),
    ("missing.json", None, "No such file"),
    ("missing.npy", None, "No such file"),
    ("missing.jsonl", None, "No such file"),
])
def test_wrong_routings(tmp_path, name, content, message):
    path = str(tmp_path / name) if content is None else written(tmp_path, name, content)
    with pytest.raises(moe.MoEError) as error:
        read_routing(f"histogram:{path}", 4, 2)
    assert message in error.value.message and path in error.value.message


@pytest.mark.parametrize("table, message", [
    ([[0, 1], [2, 2]], "the table has expert 2 twice on rank 1, expected it once at most"),
    ([[0, 1], [2, 4]], "the table has expert 4 in slot 1 of rank 1, expected 0 to 3 or -1"),
    ([[0, 1], [2, -1]], "the table has expert 3 on no rank, expected all 4 experts"),
    ([[0, 1, 2, 3]], "the table has 1 ranks, expected 2"),
    ([[0, 1], [2]], "expected a list of the slots of each rank"),
    ([[0, 1], [2, -2]], "expected a list of the slots of each rank"),
    ([[0, 1], [2, 3.0]], "expected a list of the slots of each rank"),
    ({"table": []}, "expected a list of the slots of each rank"),
])
def test_wrong_tables(tmp_path, table, message):
    path = written(tmp_path, "table.json", table)
    with pytest.raises(moe.MoEError) as error:
        read_table(path, lambda found: check_table(found, 4, 2))
    assert message in error.value.message and path in error.value.message


def test_tables(tmp_path):
    table = np.array([[0, 1, 2], [3, 0, -1]], np.int32)
    for name in ("table.npy", "table.json"):
        write_table(tmp_path / name, table)
        found = read_table(tmp_path / name)
        assert found.dtype == np.int32 and (found == table).all()
    with pytest.raises(moe.MoEError, match="ends in .npy or .json"):
        write_table(tmp_path / "table.txt", table)
    np.save(tmp_path / "f.npy", table.astype(np.float32))
    with pytest.raises(moe.MoEError, match=r"expected integers \[ranks, slots\], got float32"):
        read_table(tmp_path / "f.npy")


LINK = {"alpha": 1e-6, "beta": 1e9}


@pytest.mark.parametrize("content, message", [
    ([], "expected an object with 'format' 1"),
    ({"format": 1, "node": LINK}, "expected 'network' to be an object with 'alpha' and 'beta'"),
    ({"format": 1, "node": LINK, "network": {"alpha": 1}}, "expected 'network' to be an object"),
    ({"format": 1, "node": LINK, "network": {"alpha": -1, "beta": 1}},
     "'network': 'alpha' is -1, expected a number at least 0"),
    ({"format": 1, "node": LINK, "network": {"alpha": 0, "beta": 0}},
     "'network': 'beta' is 0, expected a number above 0"),
    ('{"format": 1, "node": {"alpha": NaN, "beta": 1}, "network": {}}', "'alpha' is nan"),
    ({"format": 1, "node": LINK, "network": LINK, "nodes": 3}, "has 'nodes', expected 'name'"),
    ({"format": 1, "name": 3, "node": LINK, "network": LINK}, "'name' is 3, expected a text"),
    ({"format": 1, "node": LINK, "network": LINK, "rank": {"flops": "1", "bandwidth": 1}},
     "'flops' is '1', expected a number above 0"),
])
def test_wrong_links(tmp_path, content, message):
    with pytest.raises(moe.MoEError) as error:
        Links.read(written(tmp_path, "links.json", content))
    assert message in error.value.message


# --------------------------------------------------------------------------
# The command
# --------------------------------------------------------------------------

SIZES = ["--experts=8", "--top-k=2", "--hidden=32", "--intermediate=64"]


def test_command_plans(tmp_path, capsys):
    links = written(tmp_path, "links.json", {"format": 1, "name": "two links", "node": LINK,
                                             "network": LINK,
                                             "rank": {"flops": 1e12, "bandwidth": 1e11}})
    source = written(tmp_path, "layer.mlir", layers.text("mixtral", "f32"))
    arguments = ["--ep=2x2", "--tokens=10,0,7,3", f"--links={links}", "--memory-limit=40KiB"]
    assert main([source, *arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows_received"]["bound"] == 20 and found["method"] == "exact"
    assert found["rows_received"]["mean"] == pytest.approx([20 * (1 - 15 / 28)] * 4, abs=1e-3)
    assert found["rounds"]["limit"] == 40960 and found["seconds"]["links"] == "two links"
    assert found["memory"]["bound"]["call"] >= found["memory"]["mean"]["call"] > 0
    assert np.shape(found["rows_sent_by_pair"]) == (4, 4)
    assert main([*SIZES, *arguments]) == 0
    text = capsys.readouterr().out
    assert "8 experts, top 2, 4 ranks in 2 nodes, 2 slots a rank, uniform" in text
    assert "never more than 20" in text and "two links" in text
    # An artifact, whose layer is the same; and one for a single rank, which has no plan.
    module = moe.compile(layers.text("mixtral", "f32"), options=["--parallel=ranks=4"])
    assert main([str(module.path), *arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found
    alone = moe.compile(layers.text("mixtral", "f32"))
    with pytest.raises(moe.MoEError, match="expected one compiled with --parallel=SLOTS"):
        main([str(alone.path), "--ep=2"])


def test_command_places(tmp_path, capsys):
    routing = written(tmp_path, "routing.json", [90, 10, 10, 10, 10, 10, 10, 10])
    table = tmp_path / "table.npy"
    assert main([f"--place={routing}", "--ep=4", "--slots=3", "-o", str(table)]) == 0
    assert "4 ranks, 3 slots, 8 experts on up to 4 ranks" in capsys.readouterr().out
    found = np.load(table)
    assert balance(found, np.array([90] + [10] * 7)) == pytest.approx(
        max((22.5 + 20) / 40, 1), abs=1e-6)
    source = written(tmp_path, "layer.mlir", layers.text("mixtral", "f32"))
    load = written(tmp_path, "run.json", {"format": 1, "dispatches": [
        {"num_experts": 8, "top_k": 2, "dropped": 0,
         "tokens_per_expert": [90, 10, 10, 10, 10, 10, 10, 10]}]})
    assert main([source, "--ep=4", f"--table={table}", f"--load=histogram:{load}", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    routing = Routing.counted([90] + [10] * 7, 2)
    assert plan["slots"] == 3 and plan["rows_computed"]["fullest_over_mean"] == pytest.approx(
        balance(found, routing.load), rel=1e-6)


def test_command_simulates(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    links = written(tmp_path, "links.json", {"format": 1, "node": LINK, "network": LINK})
    picture = tmp_path / "scaling.png"
    simulated = [*SIZES, "--simulate=2,8,64", f"--links={links}", "--tokens=16,64"]
    assert main([*simulated, f"--plot={picture}"]) == 0
    assert "simulated" in capsys.readouterr().out
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert main([*simulated, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["simulated"] and [each["ranks"] for each in found["tokens"]["64"]] == [2, 8, 64]


@pytest.mark.parametrize("arguments, message", [
    ([], "expected --ep=N or --ep=NODESxRANKS"),
    (["--ep=0", *SIZES], "--ep is '0', expected N or NODESxRANKS of at least 1"),
    (["--ep=2x", *SIZES], "--ep is '2x', expected N or NODESxRANKS"),
    (["--ep=9", *SIZES], "expected at most a rank for each of 8 experts, got 9 ranks"),
    (["--ep=2", "--slots=3", *SIZES], "2 ranks with 3 slots hold 6 experts, expected at least 8"),
    (["--ep=2", "--experts=8"], "expected --top-k"),
    (["--ep=2", *SIZES, "--top-k=9"], "top_k is 9, expected 1 to 8 experts"),
    (["--ep=2", *SIZES, "--top-k=x"], "--top-k is 'x', expected an integer of at least 1"),
    (["--ep=2", *SIZES, "--dtype=f64"], "expected a dtype of f32, f16, bf16"),
    (["--ep=2", *SIZES, "--tokens=1,2,3"], "expected tokens of at least 0 for each of 2 ranks, "
     "got 3 numbers"),
    (["--ep=2", *SIZES, "--tokens=-1"], "--tokens is '-1', expected integers of at least 0"),
    (["--ep=2", *SIZES, "--load=zipf:x"], "expected zipf:S with an exponent S from 0 to 64, got "
     "'zipf:x'"),
    (["--ep=2", *SIZES, "--load=even"], "expected a load of uniform, zipf:S or histogram:FILE, "
     "got 'even'"),
    (["--ep=2", *SIZES, "--groups=3:1"], "groups are 3:1, expected a divisor of 8 experts"),
    (["--ep=2", *SIZES, "--groups=8:1"], "groups 8:1 have 1 experts for a token, expected at "
     "least top_k 2"),
    (["--ep=2", *SIZES, "--groups=4:2", "--load=zipf:1"], "groups go with a uniform load"),
    (["--ep=2", *SIZES, "--delta=1"], "delta is 1, expected above 0 and below 1"),
    (["--ep=2", *SIZES, "--delta=x"], "--delta is 'x', expected a number"),
    (["--ep=2", *SIZES, "--memory-limit=2MB"], "--memory-limit is '2MB', expected bytes such as"),
    (["--ep=2", *SIZES, "--out=token"], "expected rows a choice, rank, node, got 'token' out"),
    (["--ep=2", *SIZES, "--links=missing.json"], "'missing.json': No such file"),
    (["--ep=2", *SIZES, "--nothing"], "unrecognized arguments: --nothing"),
    (["--simulate=8", *SIZES], "expected --links=FILE"),
    (["--simulate=8,x", *SIZES], "--simulate is '8,x', expected integers of at least 1"),
    (["--simulate=8", "--place=a.json"], "expected --place or --simulate, got both"),
    (["--place=missing.json", "--ep=2"], "'missing.json': No such file"),
])
def test_wrong_commands(arguments, message):
    with pytest.raises(moe.MoEError) as error:
        main(arguments)
    assert message in error.value.message
    assert not error.value.message[0].isupper()


def test_plan_of_a_table_for_others():
    layer = make_plan.__globals__["LayerShape"].of_sizes(8, 2, 32, 64, 4)
    for table, message in (([[0, 1, 2, 3], [4, 5, 6, 6]], "expert 6 twice on rank 1"),
                           ([[0, 1, 2, 3]], "the table has 1 ranks, expected 2"),
                           ([[0, 1, 2, 3], [4, 5, 6, -1]], "expert 7 on no rank")):
        with pytest.raises(moe.MoEError, match=message):
            make_plan(layer, 2, Routing.uniform(8, 2), 4, table=np.array(table))
    with pytest.raises(moe.MoEError, match="the load has 16 experts and top_k 2, expected 8 and"):
        make_plan(layer, 2, Routing.uniform(16, 2), 4)
    with pytest.raises(moe.MoEError, match="3 ranks in nodes of 2, expected a multiple"):
        make_plan(layer, 3, Routing.uniform(8, 2), 4, node_size=2)
