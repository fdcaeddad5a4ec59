"""Layers over processes with a gloo group: the bits of one rank, and errors where ranks disagree,
die or do not come."""

from __future__ import annotations

import gc
import os
import signal
import time

import moe
import numpy as np
import pytest
from moe_testing import compiled_layers, data, layers, processes, ranks
from moe_testing.layers import E

torch = pytest.importorskip("torch")
import torch.distributed as dist  # noqa: E402

# Token choice with a shared expert, tokens chosen by experts, and capacities.
NAMES = ("deepseek_v3", "expert_choice", "deepspeed_top2")
COUNTS = {2: [12, 25], 3: [0, 30, 7], 4: [9, 0, 27, 1]}


def artifact(name: str, dtype: str, parallel: str) -> str:
    return str(moe.compile(layers.text(name, dtype), options=[f"--parallel={parallel}"]).path)


def results_of(result) -> list[np.ndarray]:
    return list(result) if isinstance(result, tuple) else [result]


def call(group, name, dtype, counts, path, table=None, limit=0, chunks=1, way="all_to_all"):
    """The outputs of this rank, and what was moved."""
    group = moe.parallel.Group(group, num_threads=1, memory_limit=limit,
                               chunks=chunks, way=way)
    # Processes of one machine read one another's memory.
    assert group.way == ("peer" if way == "auto" else way)
    layer = moe.load(path, group=group).layer(data.weights_of(name, dtype), table=table)
    inputs = ranks.split(data.inputs_of(name, sum(counts), dtype), counts)[group.rank]
    # Twice: buffers are kept.
    first, second = results_of(layer(**inputs)), results_of(layer(**inputs))
    for a, b in zip(first, second, strict=True):
        assert (data.bits(a) == data.bits(b)).all()
    return first, layer.exchange


def check(results, name, dtype, counts) -> None:
    expected = results_of(compiled_layers.layer(name, dtype)(
        **data.inputs_of(name, sum(counts), dtype)))
    for parts, whole in zip(zip(*(each[0] for each in results)), expected, strict=True):
        assert (data.bits(np.concatenate(parts)) == data.bits(whole)).all(), (name, counts)


def several(group, cases):
    return [call(group, *case) for case in cases]


@pytest.mark.parametrize("size", COUNTS)
def test_bits_of_one_rank(size):
    cases = [(name, "f32", COUNTS[size], artifact(name, "f32", str(E))) for name in NAMES]
    # All tokens on the last rank.
    cases.append(("mixtral", "bf16", [0] * (size - 1) + [33], artifact("mixtral", "bf16", str(E))))
    # Experts in any order, some on two ranks.
    table = np.full((size, E), -1, np.int32)
    order = data.rng("table", size).permutation(E)
    for i, expert in enumerate(order):
        table[i % size, i // size] = expert
        if i % 2:
            table[(i + 1) % size, E - 1 - i // size] = expert
    cases.append(("mixtral", "f32", COUNTS[size], artifact("mixtral", "f32", f"{E}:2"), table))
    cases += [(*case[:4], *(case[4:] or (None,)), 0, 1, "auto") for case in cases]
    for case, results in zip(cases, zip(*processes.run(size, several, cases))):
        check(results, *case[:3])
        exchanges = [exchange for _, exchange in results]
        assert sum(e.bytes_sent for e in exchanges) == sum(e.bytes_received for e in exchanges) > 0


def test_rounds():
    counts, path = [0, 61, 40], artifact("mixtral", "f32", str(E))
    cases = [("mixtral", "f32", counts, path, None, limit) for limit in (0, 60000, 25000)]
    cases.append((*cases[0], 4))
    # Rows are not packed, which needs less.
    cases.append((*cases[0][:5], 50000, 1, "peer"))
    rounds = []
    for results in zip(*processes.run(3, several, cases)):
        check(results, "mixtral", "f32", counts)
        rounds.append(max(exchange.rounds for _, exchange in results))
    assert rounds[0] == 1 and 1 < rounds[1] < rounds[2] and rounds[3] == 4 and rounds[4] > 1


def call_replicated(group, name, dtype, tokens, path, way):
    """The outputs of a rank that has the tokens of all, and how they left."""
    group = moe.parallel.Group(group, num_threads=1, way=way, tokens="replicated")
    layer = moe.load(path, group=group).layer(data.weights_of(name, dtype))
    outputs = results_of(layer(**data.inputs_of(name, tokens, dtype)))
    return outputs, layer.exchange.way


@pytest.mark.parametrize("size", COUNTS)
def test_replicated_tokens(size):
    """Every rank has the results of all tokens."""
    for way in ("all_to_all", "auto"):
        name, tokens = ("deepseek_v3", "deepspeed_top2")[size % 2], 4 * size + 1
        found = processes.run(size, call_replicated, name, "f32", tokens,
                              artifact(name, "f32", str(E)), way)
        expected = results_of(compiled_layers.layer(name, "f32")(
            **data.inputs_of(name, tokens, "f32")))
        for outputs, its in found:
            assert its == ("peer" if way == "auto" else way)
            for ours, theirs in zip(outputs, expected, strict=True):
                assert (data.bits(ours) == data.bits(theirs)).all(), (name, way)


def call_moved(group, path, tables, counts):
    """The outputs after each move, and the experts that came."""
    group = moe.parallel.Group(group, num_threads=1)
    layer = moe.load(path, group=group).layer(data.weights_of("mixtral", "bf16"))
    inputs = ranks.split(data.inputs_of("mixtral", sum(counts), "bf16"), counts)[group.rank]
    found = []
    for table in tables:
        layer.move(table)
        moved = layer.exchange.rows_received
        found.append((results_of(layer(**inputs)), moved))
    return found


def test_moves():
    """From neighbours to even and odd experts, and back."""
    own = np.stack([np.arange(rank, E, 2) for rank in range(2)])
    results = processes.run(2, call_moved, artifact("mixtral", "bf16", str(E // 2)), [own, None],
                            [14, 9])
    for found in zip(*results):
        check(found, "mixtral", "bf16", [14, 9])
        assert [moved for _, moved in found] == [E // 4, E // 4]


def two_layers(group, paths, counts):
    """Two layers take turns on one group, which is one of several of the processes."""
    import torch.distributed as dist

    own = dist.new_group(backend="gloo")
    group = moe.parallel.Group(own, num_threads=1)
    made = {name: moe.load(path, group=group).layer(data.weights_of(name))
            for name, path in paths.items()}
    found = {}
    for _ in range(2):
        for name, layer in made.items():
            inputs = ranks.split(data.inputs_of(name, sum(counts)), counts)[group.rank]
            found[name] = (results_of(layer(**inputs)), layer.exchange)
    return found


def test_two_layers_of_a_group():
    paths = {name: artifact(name, "f32", str(E)) for name in ("mixtral", "expert_choice")}
    found = processes.run(2, two_layers, paths, [20, 13])
    for name in paths:
        check([each[name] for each in found], name, "f32", [20, 13])


def in_parts(group, table, rows):
    """The engine alone: rows that are not neighbours, as in rounds."""
    import ctypes

    from moe.integrations.process_group import communicator

    raw = communicator(group).raw
    size, rank = raw.size, raw.rank
    words = ctypes.c_int64 * size

    def wait(request):
        while not (state := raw.test(None, request)):
            time.sleep(0)
        assert state == 1

    sent = [table[rank][r] for r in range(size)]
    comes = [table[r][rank] for r in range(size)]
    width, gap = 5, 3
    send = raw.allocate(None, rows * width)
    receive = raw.allocate(None, rows * width)
    assert send % 64 == receive % 64 == 0
    ctypes.memset(receive, 255, rows * width)
    begins = [rows - (r + 1) * rows // size for r in range(size)]  # in no order
    for r in range(size):
        row = bytes([rank * size + r]) * width
        for i in range(sent[r]):
            ctypes.memmove(send + (begins[r] + i) * width, row, width)
    request = ctypes.c_void_p()
    assert raw.exchange(None, send, words(*sent), words(*begins), receive, words(*comes),
                        words(*(b + gap for b in begins)), width, None,
                        ctypes.byref(request)) == 0
    wait(request)
    expected = bytearray(b"\xff" * rows * width)
    for r in range(size):
        begin = (begins[r] + gap) * width
        expected[begin:begin + comes[r] * width] = bytes([r * size + rank]) * width * comes[r]
    assert ctypes.string_at(receive, rows * width) == bytes(expected)

    counts = [r % 3 for r in range(size)]
    ctypes.memset(send, 65 + rank, rows * width)
    assert raw.gather(None, send, receive, words(*counts), width, None,
                      ctypes.byref(request)) == 0
    wait(request)
    whole = b"".join(bytes([65 + r]) * width * counts[r] for r in range(size))
    assert ctypes.string_at(receive, len(whole)) == whole

    # A buffer that there is not: an error in words, and no collective has started.
    assert raw.exchange(None, send, words(*[1] * size), words(*[99 * rows] * size), receive,
                        words(*[1] * size), words(*begins), width, None,
                        ctypes.byref(request)) < 0
    assert b"are in no buffer" in raw.message(None)
    raw.release(None, send, rows * width)
    raw.release(None, receive, rows * width)
    return True


def test_rows_that_are_no_neighbours():
    table = [[2, 0, 5], [0, 0, 0], [1, 4, 3]]
    assert processes.run(3, in_parts, table, 40) == [True] * 3


def wrong_inputs(group, path, counts):
    """What each rank is told when one of them passes something wrong, then when none does."""
    group = moe.parallel.Group(group, num_threads=1, deadline=20)
    layer = moe.load(path, group=group).layer(data.weights_of("mixtral"))
    inputs = ranks.split(data.inputs_of("mixtral", sum(counts)), counts)[group.rank]
    errors = []
    for wrong in (0, group.size - 1):
        given = dict(inputs)
        if group.rank == wrong:
            given["x"] = given["x"][:, :-1].copy()
        with pytest.raises(moe.MoEError) as raised:
            layer(**given)
        errors.append((raised.value.code, str(raised.value)))
    group.check()
    return errors, (results_of(layer(**inputs)), layer.exchange)


def test_wrong_input_of_a_rank():
    counts = [10, 3, 24]
    results = processes.run(3, wrong_inputs, artifact("mixtral", "f32", str(E)), counts)
    for rank, (errors, _) in enumerate(results):
        for wrong, (code, message) in zip((0, 2), errors):
            assert code == moe.INVALID_ARGUMENT
            assert f"rank {wrong}" in message
            if rank == wrong:
                assert "'x'" in message
    check([result for _, result in results], "mixtral", "f32", counts)


def lost(group, path, deadline, action, way):
    """How long this rank waits for the last one, which dies or sleeps, and what it is told."""
    import torch.distributed as dist

    process_group, group = group, moe.parallel.Group(group, num_threads=1, deadline=deadline,
                                                    way=way)
    layer = moe.load(path, group=group).layer(data.weights_of("mixtral"))
    inputs = data.inputs_of("mixtral", 40)
    layer(**inputs)
    dist.barrier(process_group)
    if group.rank == group.size - 1:
        if action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(2.5 * deadline)
    found = []
    for use in (lambda: layer(**inputs), lambda: layer(**inputs), group.check):
        start = time.monotonic()
        with pytest.raises(moe.MoEError) as raised:
            use()
        found.append((raised.value.code, str(raised.value), time.monotonic() - start))
    if action == "sleep" and group.rank < group.size - 1:
        # What gloo may still write to stays until the late rank has come.
        del layer, group
        gc.collect()
        time.sleep(2.5 * deadline)
    return found


def check_dead(found) -> None:
    (first, _, _), *later = found
    for code, message, seconds in later:
        assert code == first and "the group is dead: rank" in message
        assert seconds < 0.1


@pytest.mark.parametrize("way", ("all_to_all", "peer"))
def test_killed_rank(way):
    *found, killed = processes.run(3, lost, artifact("mixtral", "f32", str(E)), 10, "kill", way)
    assert killed.exit_code == -signal.SIGKILL
    for rank, each in enumerate(found):
        code, message, seconds = each[0]
        assert code == moe.UNAVAILABLE
        assert f"rank {rank} of 3: the engine failed: " in message
        assert seconds < 1
        check_dead(each)


@pytest.mark.parametrize("way", ("all_to_all", "peer"))
def test_late_rank(way):
    found = processes.run(3, lost, artifact("mixtral", "f32", str(E)), 1, "sleep", way)
    for rank, each in enumerate(found):
        code, message, seconds = each[0]
        if rank < 2:
            assert code == moe.DEADLINE_EXCEEDED
            assert f"rank {rank} of 3 has waited 1" in message
            assert 1 <= seconds < 1.5
        else:
            # It finds a group that the others have given up.
            assert code in (moe.DEADLINE_EXCEEDED, moe.UNAVAILABLE)
            assert seconds < 1.5
        check_dead(each)


def given_up(group, size):
    """Rank 0 drops the engine while rows come, which must have where to go."""
    import ctypes

    import torch
    import torch.distributed as dist
    from moe.integrations.process_group import communicator

    ours = communicator(group)
    raw = ours.raw
    words, request = ctypes.c_int64 * 2, ctypes.c_void_p()
    buffer = raw.allocate(None, size)
    ctypes.memset(buffer, 7, size)
    sent = words(0, 0) if raw.rank == 0 else words(size, 0)
    comes = words(0, size) if raw.rank == 0 else words(0, 0)
    if raw.rank == 1:
        time.sleep(0.5)
    assert raw.exchange(None, buffer, sent, words(0, 0), buffer, comes, words(0, 0), 1, None,
                        ctypes.byref(request)) == 0
    if raw.rank == 1:
        while not raw.test(None, request):
            time.sleep(0)
    else:
        del ours, raw
        gc.collect()
    after = torch.zeros(size, dtype=torch.uint8)  # where the buffer was, if it was freed
    dist.barrier(group)
    return int(after.max())


def test_rows_that_come_to_an_engine_that_is_gone():
    assert processes.run(2, given_up, 64 << 20, limit=30) == [0, 0]


def other_backend(_group, backend):
    import torch.distributed as dist
    from torch.testing._internal.distributed import fake_pg

    assert fake_pg  # registers the backend
    other = dist.new_group(backend=backend)
    with pytest.raises(moe.MoEError) as raised:
        moe.parallel.Group(other)
    assert raised.value.code == moe.UNIMPLEMENTED
    # One that has gloo for the CPU.
    assert moe.parallel.Group(dist.new_group(backend="cpu:gloo,cuda:fake")).size == 1
    return str(raised.value)


def test_other_backends():
    message, = processes.run(1, other_backend, "fake")
    assert "expected a process group with the backend gloo for tensors on the CPU, got '" in message
    assert "fake" in message
    with pytest.raises(moe.MoEError, match="group: expected a process group of torch.distributed, "
                                           "a moe.parallel.Communicator or None, got str"):
        moe.parallel.Group("gloo")


def own_weights(group, path, table, counts):
    """A layer whose weights are those of the experts of this rank alone."""
    group = moe.parallel.Group(group, num_threads=1)
    module = moe.load(path, group=group)
    own = [expert for expert in table[group.rank] if expert >= 0]
    weights = dict(data.weights_of("deepseek_v3"))
    for name in ("gate_proj", "up_proj", "down_proj"):
        weights[name] = weights[name][own]
    layer = module.layer(weights, table=table)
    inputs = ranks.split(data.inputs_of("deepseek_v3", sum(counts)), counts)[group.rank]
    result = results_of(layer(**inputs)), layer.exchange

    # One expert too few, on one rank.
    if group.rank == 0:
        weights["up_proj"] = weights["up_proj"][1:]
    with pytest.raises(moe.MoEError) as raised:
        module.layer(weights, table=table)
    return result, str(raised.value)


def test_weights_of_own_experts():
    path, counts = artifact("deepseek_v3", "f32", str(E - 3)), [12, 25]
    table = np.full((2, E - 3), -1, np.int32)
    order = data.rng("own").permutation(E)
    table[0, 1:4], table[1] = order[:3], order[3:]
    results = processes.run(2, own_weights, path, table, counts)
    check([result for result, _ in results], "deepseek_v3", "f32", counts)
    assert "weight 'up_proj' is f32 [2, " in results[0][1]
    assert "for the 3 experts of rank 0" in results[0][1]
    assert "rank 0 failed with code 3" in results[1][1]


def refused_in_python(group, path):
    """One rank passes what is no array: the others are told at once."""
    group = moe.parallel.Group(group, num_threads=1, deadline=20)
    module = moe.load(path, group=group)
    weights, inputs = data.weights_of("mixtral"), data.inputs_of("mixtral", 5)
    errors = []
    with pytest.raises(moe.MoEError) as raised:
        module.layer({} if group.rank == 1 else weights)
    errors.append(str(raised.value))
    layer = module.layer(weights)
    with pytest.raises(moe.MoEError) as raised:
        layer("x" if group.rank == 1 else inputs["x"])
    errors.append(str(raised.value))
    layer(**inputs)
    return errors


def test_what_python_refuses_on_a_rank():
    first, second = processes.run(2, refused_in_python, artifact("mixtral", "f32", str(E)),
                                  limit=15)
    assert all("rank 1 failed with code 3" in each for each in first)
    assert "missing weights" in second[0]
    assert "input 'x'" in second[1]
