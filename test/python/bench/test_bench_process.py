"""Processes of the benchmark's participants: what they answer, and how they end."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from bench.common import data, oracle
from bench.common.participants import Unavailable
from bench.common.shapes import SHAPES
from bench.cpu import environments, worker
from bench.cpu.participants import PARTICIPANTS
from bench.cpu.process import Failed, Process, Recipe

RECIPE = Recipe("tiny", "f32", threads=1, seed=3, layers=2, cache="")
TINY = SHAPES["tiny"]


class Fake:
    """A participant and its runner."""

    name = "fake"
    kind = "peer"

    def open(self, case):
        self.case = case
        return self

    def copies_in(self, dtype):
        return 0

    def scratch(self, tokens):
        return 7 * tokens

    def load(self, inputs):
        if len(inputs[0]) == 2:
            raise Unavailable("no kernel for two tokens")
        self.inputs = inputs

    def step(self, number):
        if number == 40:
            os.kill(os.getpid(), signal.SIGTERM)
        if number == 50:
            os._exit(5)
        if number == 60:
            time.sleep(60)
        if number == 70:
            raise ValueError("a bad number")

    def output(self):
        return oracle.run(TINY, self.case.layers[0], self.inputs[0]).astype(np.float32)


@pytest.fixture(scope="module")
def case():
    return RECIPE.case()


@pytest.fixture
def fake(case):
    process = Process(Fake(), RECIPE, case)
    process.request(10, "open")
    yield process
    process.close()


def state_of(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_process_is_stopped_but_for_its_requests(fake, case):
    assert fake.request(10, "scratch", 6) == 42
    assert len(fake.request(10, "sample", 0, 3)) == 3
    end = time.monotonic() + 5
    while state_of(fake.pid) != "T" and time.monotonic() < end:
        time.sleep(0.01)
    assert state_of(fake.pid) == "T"
    fake.request(10, "load", [np.ones((1, TINY.hidden), np.float32)])
    expected = oracle.run(TINY, case.layers[0], np.ones((1, TINY.hidden)))
    np.testing.assert_allclose(fake.request(10, "output"), expected, rtol=1e-6)


def test_what_a_participant_raises_is_raised_here_and_it_goes_on(fake):
    with pytest.raises(Failed, match="^ValueError: a bad number$"):
        fake.request(10, "sample", 70, 1)
    with pytest.raises(Unavailable, match="^no kernel for two tokens$"):
        fake.request(10, "load", [np.ones((2, 4))])
    assert not fake.ended and fake.request(10, "scratch", 1) == 7


@pytest.mark.parametrize("number, how", [
    (40, "the process ended by SIGTERM"), (50, "the process ended with status 5"),
    (60, "no answer in 1 s")])
def test_a_process_that_ends_or_hangs(fake, number, how):
    for _ in range(2):
        with pytest.raises(Failed, match=f"^{how}$"):
            fake.request(1, "sample", number, 1)
    assert not Path(f"/proc/{fake.pid}").exists()


def test_a_participant_with_a_python_of_its_own_has_the_same_weights(case):
    process = Process(PARTICIPANTS["moe_mlir"], RECIPE, case, python=sys.executable)
    try:
        process.request(120, "open")
        x = next(data.batches(TINY, case.layers[0].router, "f32", 5, "uniform", seed=8)).x
        process.request(30, "load", [x])
        for number in (0, 1):
            process.request(30, "sample", number, 1)
            error = oracle.relative_error(process.request(30, "output"),
                                          oracle.run(TINY, case.layers[number], x))
            assert error <= oracle.tolerance("f32", TINY.top_k)
    finally:
        process.close()


def test_a_python_that_is_not_there(case):
    process = Process(PARTICIPANTS["moe_mlir"], RECIPE, case, python="/nonexistent/python")
    with pytest.raises(Failed, match="^the process ended with status 1$"):
        process.request(10, "open")


def test_a_participant_that_crashes_is_missing_from_then_on(monkeypatch):
    """The others are measured."""
    class Crashing(Fake):
        name = "crashing"

        def step(self, number):
            os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(worker, "chosen", lambda names: [Fake(), Crashing()])
    monkeypatch.setattr(worker, "PARTICIPANTS", {"fake": Fake(), "crashing": Crashing()})
    monkeypatch.setattr(Fake, "step", lambda self, number: time.sleep(0.001))
    peaks = {"threads": 1, "fma_f32": 1e9, "dot_bf16": 0.0, "read": 1e9, "copy": 1e9}
    task = {"shape": "tiny", "dtype": "f32", "threads": 1, "seed": 0, "cache": "", "pythons": {},
            "tokens": [1, 3], "routings": ["uniform"], "participants": [], "absent": {},
            "seconds": 1.0, "peaks": peaks}
    events = []
    made = worker.Worker(task, lambda kind, **values: events.append(values))
    made.run()
    made.close()
    for event in events:
        assert event["participants"]["fake"]["status"] == "ok"
        assert event["participants"]["crashing"] == {
            "status": "failed", "reason": "the process ended by SIGKILL"}
    assert len(events) == 2


def test_environments_are_made_once(monkeypatch, tmp_path):
    commands = []

    def run(command, **options):
        commands.append([str(part) for part in command])
        (tmp_path / ".venv-bench-peer").mkdir(exist_ok=True)

    monkeypatch.setattr(environments.machine, "ROOT", tmp_path)
    monkeypatch.setattr(environments.subprocess, "run", run)
    requirements = tmp_path / "peer.txt"
    requirements.write_text("peer==1.0\n")
    python = environments.python(requirements)
    assert python == tmp_path / ".venv-bench-peer" / "bin" / "python"
    assert len(commands) == 2 and commands[1][-2:] == ["-r", str(requirements)]
    assert environments.python(requirements) == python and len(commands) == 2
    requirements.write_text("peer==1.1\n")
    environments.python(requirements)
    assert len(commands) == 4


def test_an_environment_that_cannot_be_made(monkeypatch, tmp_path):
    monkeypatch.setattr(environments.machine, "ROOT", tmp_path)
    requirements = tmp_path / "peer.txt"
    requirements.write_text("no-such-package-anywhere==1.0\n")
    monkeypatch.setattr(environments.sys, "executable", "/nonexistent/python")
    with pytest.raises(Unavailable, match="^peer.txt was not installed: .*No such file"):
        environments.python(requirements)


def test_a_process_that_is_not_forked_has_weights_of_its_own():
    iree = PARTICIPANTS["iree"]
    assert iree.copies_in("f32") == iree.copies + 1
    assert PARTICIPANTS["jax"].copies_in("f32") == PARTICIPANTS["jax"].copies


def test_versions_are_those_that_are_required():
    assert environments.versions(["jax"]) == {}
    assert "iree: iree-base-compiler" in environments.versions(["iree"])
