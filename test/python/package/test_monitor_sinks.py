"""Where a monitor's records go, read back by the programs that they are for."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pytest

import moe
from moe.monitor import _plot

# Labels and tags that formats have to quote.
NAMES = ["model.layers.0.mlp", 'a "b"\\c']


def watched(to, steps=2, **options):
    """Records of two layers: expert 1 has two rows a step, expert 2 none."""
    with moe.monitor.watch({}, to=to, dead_after=2, **options) as monitor:
        for step in range(steps):
            for name in NAMES:
                monitor.add(name, [[0, 1], [1, 3]], np.array([[0.75, 0.25], [0.5, 0.5]]),
                            num_experts=4)
            monitor.step()
    return monitor


# -- functions and files --------------------------------------------------------


def test_json_lines(tmp_path):
    path = tmp_path / "load.jsonl"
    monitor = watched([path], price_per_hour=2)
    lines = path.read_text().splitlines()
    assert len(lines) == 2

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    first, second = (json.loads(line, parse_constant=refuse) for line in lines)
    assert (first["step"], second["step"], second["tokens"]) == (1, 2, 2)
    assert second["seconds"] == monitor.last.seconds
    assert second["cost_per_million_tokens"] == monitor.last.cost_per_million_tokens
    assert "joules_per_million_tokens" not in second
    assert list(second["layers"]) == NAMES
    its = second["layers"][NAMES[1]]
    assert its == {"load": [1, 2, 0, 1], "calls": 1, "top_k": 2, "tokens": 2, "choices": 4,
                   "entropy": pytest.approx(1.5 * np.log(2)),
                   "variation": pytest.approx(2 ** -0.5), "dropped": 0, "dead": [2],
                   "confidence": 0.625, "margin": 0.25}
    assert first["layers"][NAMES[1]]["dead"] == []


def test_append(tmp_path):
    path = tmp_path / "load.jsonl"
    for append, lines in ((False, 2), (True, 4), (False, 2)):
        sink = moe.monitor.JSONLines(path, append=append)
        watched(sink)
        sink.close()
        assert len(path.read_text().splitlines()) == lines


def test_numbers_that_are_not_finite(tmp_path):
    path = tmp_path / "load.jsonl"
    with moe.monitor.watch({}, to=path) as monitor:
        monitor.add("a", [[0, 1]], np.array([[np.nan, 1.0]]), num_experts=2)
        monitor.step()
    assert json.loads(path.read_text())["layers"]["a"]["confidence"] == "nan"


def test_a_closed_file(tmp_path):
    sink = moe.monitor.JSONLines(tmp_path / "load.jsonl")
    monitor = moe.monitor.watch({}, to=sink)
    sink.close()
    with pytest.raises(moe.MoEError, match="load.jsonl' is closed"):
        monitor.step()


def test_a_sink_that_fails():
    """The others get the record; the counts of the next one are its own."""
    seen = []

    def fail(record):
        if record.step == 1:
            raise OSError("no space")

    with moe.monitor.watch({}, to=[fail, seen.append]) as monitor:
        for expected in (pytest.raises(OSError, match="no space"), None):
            monitor.add("a", [[0]], num_experts=1)
            if expected is not None:
                with expected:
                    monitor.step()
            else:
                monitor.step()
    assert [r.step for r in seen] == [1, 2]
    assert [r.layers["a"].calls for r in seen] == [1, 1]


def test_unknown_sinks(tmp_path):
    for to, message in (("load.csv", "to is 'load.csv', expected a path that ends in .jsonl"),
                        (3, "to is 3, expected a path"),
                        ([print, None], "to is None, expected a path")):
        with pytest.raises(moe.MoEError, match=message):
            moe.monitor.watch({}, to=to)
    with pytest.raises(moe.MoEError, match="cannot write '.*/no/load.jsonl': No such file"):
        moe.monitor.watch({}, to=tmp_path / "no" / "load.jsonl")


@pytest.mark.parametrize("package, make", [
    ("prometheus_client", lambda folder: moe.monitor.Prometheus()),
    ("tensorboard", lambda folder: moe.monitor.TensorBoard(folder)),
    ("matplotlib", lambda folder: moe.monitor.plot(folder / "load.jsonl", folder / "a.png"))])
def test_packages_that_are_missing(package, make, tmp_path, monkeypatch):
    watched(tmp_path / "load.jsonl")
    for name in [n for n in sys.modules if n.startswith(("torch.utils.tensorboard", package))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(moe.MoEError, match=f"needs the package '{package}', which is not"):
        make(tmp_path)


# -- Prometheus -----------------------------------------------------------------


def samples(text):
    """The samples of a page: by name and labels."""
    parser = pytest.importorskip("prometheus_client.parser")
    return {(s.name, *(s.labels[n] for n in ("layer", "expert") if n in s.labels)): s.value
            for family in parser.text_string_to_metric_families(text) for s in family.samples}


def test_prometheus():
    pytest.importorskip("prometheus_client")
    sink = moe.monitor.Prometheus()
    assert samples(sink.text()) == {}
    monitor = watched(sink, steps=3, watts=100)
    found = samples(sink.text())
    assert found["moe_steps_total",] == 3 and found["moe_tokens_total",] == 6
    for name in NAMES:
        for expert, rows in enumerate([3, 6, 0, 3]):
            assert found["moe_expert_rows_total", name, str(expert)] == rows
        assert found["moe_calls_total", name] == 3 and found["moe_choices_total", name] == 12
        assert found["moe_dropped_choices_total", name] == 0
        assert found["moe_dead_experts", name] == 1
        assert found["moe_router_confidence", name] == 0.625
        assert found["moe_router_margin", name] == 0.25
        assert found["moe_load_entropy", name] == pytest.approx(1.5 * np.log(2))
        assert found["moe_load_variation", name] == pytest.approx(2 ** -0.5)
        assert ("moe_flops_total", name) not in found
    assert found["moe_joules_per_million_tokens",] == monitor.last.joules_per_million_tokens
    assert found["moe_tokens_per_second",] == monitor.last.tokens_per_second
    assert ("moe_cost_per_million_tokens",) not in found
    sink.close()
    assert samples(sink.text()) == {}
    with pytest.raises(moe.MoEError, match="the sink for Prometheus is closed"):
        watched(sink)


def test_prometheus_in_a_registry_of_others():
    client = pytest.importorskip("prometheus_client")
    registry = client.CollectorRegistry()
    client.Counter("requests", "Requests", registry=registry).inc()
    sink = moe.monitor.Prometheus(registry)
    watched(sink)
    found = samples(client.generate_latest(registry).decode())
    assert found["requests_total",] == 1 and found["moe_steps_total",] == 2


# -- TensorBoard ----------------------------------------------------------------


def test_tensorboard(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    sink = moe.monitor.TensorBoard(tmp_path)
    monitor = watched(sink)
    sink.close()
    sink.close()
    found = EventAccumulator(str(tmp_path))
    found.Reload()
    name = NAMES[0]
    entropies = found.Scalars(f"{name}/entropy")
    assert [e.step for e in entropies] == [1, 2]
    assert entropies[0].value == pytest.approx(1.5 * np.log(2))
    assert [e.value for e in found.Scalars(f"{name}/dead")] == [0, 1]
    assert found.Scalars(f"{name}/confidence")[0].value == 0.625
    assert found.Scalars("moe/tokens_per_second")[-1].value == pytest.approx(
        monitor.last.tokens_per_second)
    histogram = found.Histograms(f"{name}/load")[0].histogram_value
    assert list(histogram.bucket_limit) == [0.5, 1.5, 2.5, 3.5]
    assert list(histogram.bucket) == [1, 2, 0, 1] and histogram.num == 4
    with pytest.raises(moe.MoEError, match="the writer of TensorBoard is closed"):
        watched(sink)


# -- the map --------------------------------------------------------------------


def test_map(tmp_path):
    pytest.importorskip("matplotlib")
    from matplotlib.image import imread

    path, picture = tmp_path / "load.jsonl", tmp_path / "map.png"
    watched(path, steps=5)
    done = subprocess.run([sys.executable, "-m", "moe.monitor", "plot", path, "-o", picture],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    image = imread(picture)
    assert image.shape[0] > 100 and image.shape[1] > image.shape[0]
    # The colours of no rows and of twice the mean are there, and that of half the mean is not.
    colours = {tuple(c) for c in (image[..., :3].reshape(-1, 3) * 255).round().astype(int)}
    from matplotlib import colormaps

    map_ = colormaps["viridis"]
    for times, there in ((0, True), (1, True), (2, True), (0.5, None)):
        colour = tuple(round(255 * c) for c in map_(times / _plot.MOST_TIMES_MEAN)[:3])
        assert there is None or (colour in colours) == there
    moe.monitor.plot(path, tmp_path / "one.svg", [NAMES[1]])
    assert (tmp_path / "one.svg").read_text().count("<svg") == 1


def test_what_a_map_shows(tmp_path):
    path = tmp_path / "load.jsonl"
    watched(path, steps=3)
    steps, loads = _plot.read(path)[NAMES[0]]
    assert steps.tolist() == [1, 2, 3]
    np.testing.assert_array_equal(_plot.times_mean(loads), [[1] * 3, [2] * 3, [0] * 3, [1] * 3])
    # Steps that share a column are added up; a column without rows has no colour.
    many = np.zeros((4 * _plot.MOST_COLUMNS, 2))
    many[:4] = [[1, 0], [0, 1], [0, 1], [0, 0]]
    shown = _plot.times_mean(many)
    assert shown.shape == (2, _plot.MOST_COLUMNS)
    np.testing.assert_array_equal(shown[:, 0], [2 / 3, 4 / 3])
    assert np.isnan(shown[:, 1:]).all()


def test_a_line_that_is_not_complete(tmp_path, capsys):
    path = tmp_path / "load.jsonl"
    watched(path, steps=3)
    path.write_text(path.read_text()[:-20])
    assert len(_plot.read(path)[NAMES[0]][0]) == 2
    assert "load.jsonl:3: the last line is not complete" in capsys.readouterr().err


@pytest.mark.parametrize("text, message", [
    ("{}\n", r"load.jsonl:1: expected a record of moe.monitor, got '\{\}"),
    ("nothing\n", "expected a record"), ("[1]\n", "expected a record"),
    ('{"step": 1, "layers": {"a": {"load": 3}}}\n', "the load of 'a' is 3, expected the rows"),
    ('{"step": 1, "layers": {"a": {"load": [1.5]}}}\n', "the load of 'a' is"),
    ('{"step": 1, "layers": {"a": {"load": [1]}}}\n'
     '{"step": 2, "layers": {"a": {"load": [1, 2]}}}\n',
     "load.jsonl:2: 'a' has 2 experts, before it had 1"),
    ("", "load.jsonl' has no layers"), ("\udcff\n", "is no text")])
def test_files_that_are_no_records(text, message, tmp_path):
    path = tmp_path / "load.jsonl"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(moe.MoEError, match=message):
        moe.monitor.plot(path, tmp_path / "map.png")


def test_errors_of_the_command(tmp_path):
    def run(*arguments):
        done = subprocess.run([sys.executable, "-m", "moe.monitor", *map(str, arguments)],
                              capture_output=True, text=True)
        return done.returncode, done.stderr

    path = tmp_path / "load.jsonl"
    code, message = run("plot", path, "-o", tmp_path / "map.png")
    assert code == 1 and re.match("moe.monitor: error: cannot read '.*': No such file", message)
    watched(path)
    code, message = run("plot", path, "-o", tmp_path / "map.png", "--layer", "b")
    assert code == 1 and "has no layer 'b'; there are a \"b\"" in message
    pytest.importorskip("matplotlib")
    code, message = run("plot", path, "-o", tmp_path / "no" / "map.png")
    assert code == 1 and "cannot write" in message and "Traceback" not in message
    code, message = run("plot", path, "-o", tmp_path / "map.nothing")
    assert code == 1 and "cannot write" in message
