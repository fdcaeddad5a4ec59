"""Blocks of transformers, traced, compiled and compared with themselves."""

from __future__ import annotations

import copy
import math
import os
import subprocess
import warnings

import pytest

import moe

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from moe_testing import data, families  # noqa: E402
from moe_testing.models.blocks import BLOCKS  # noqa: E402
from moe_testing.models.hf import MODELS, H  # noqa: E402

pytestmark = pytest.mark.usefixtures("compiled")

# Of the largest result: sums in another order.
F32 = 2e-6
TABLES = {"doge"}  # whose experts are rows of tables, and not matrices of products
AS_IT_IS = "ignore:.*has nothing that is known as experts"


class Block(torch.nn.Module):
    """A block that is a function of a model, with the parameters of its modules."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        parts = [c.cell_contents for c in function.__closure__ or ()]
        self.parts = torch.nn.ModuleList(p for p in parts if isinstance(p, torch.nn.Module))

    def forward(self, x):
        return self.function(x)


def block_of(model) -> torch.nn.Module:
    block = model.block(model.model)
    return (block if isinstance(block, torch.nn.Module) else Block(block)).eval()


def compile_and_check(family: str, imported) -> moe.Module:
    """Compile a layer, and compare what was recognised with the table of families."""
    with warnings.catch_warnings(record=True) as messages:
        warnings.simplefilter("always")
        module = imported.compile()
    left = [str(m.message) for m in messages if issubclass(m.category, RuntimeWarning)]
    families.check(families.folder_of(family), traced=True,
                   raised="score(none)" not in raised(imported.mlir),
                   fused=family not in TABLES and not any(
                       "an expert is left to loops" in text for text in left))
    return module


def raised(text: str) -> str:
    """The module after the gates were raised."""
    opt = moe.find_compiler().resolve().parent / "moe-opt"
    done = subprocess.run([opt, "--moe-raise-gate", "--canonicalize", "--cse"], input=text,
                          text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.filterwarnings(AS_IT_IS)
@pytest.mark.parametrize("family", list(MODELS))
def test_family(family, record):
    model = MODELS[family]()
    imported = moe.from_torch(block_of(model))
    layer = compile_and_check(family, imported).layer(imported.arrays())
    x = model.rows_away_from_ties(33, torch.float32)
    error = data.relative_error(layer(x).numpy(), model.run(x).numpy())
    record(f"{family} f32", error)
    assert error < F32


@pytest.mark.filterwarnings(AS_IT_IS)
@pytest.mark.parametrize("family", list(BLOCKS))
def test_block(family, record):
    """Norms, state of routers, experts of several kinds: all of it around the experts."""
    block = BLOCKS[family]()
    x = torch.randn(1, 33, H, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = block(x)
    expected = expected[0] if isinstance(expected, tuple) else expected
    imported = moe.from_torch(block, example=x)
    layer = compile_and_check(family, imported).layer(imported.arrays())
    error = data.relative_error(layer(x[0]).numpy(), expected.reshape(33, H).numpy())
    record(f"{family} f32", error)
    assert error < F32


# Those that differ most; the rest takes minutes.
SAMPLE = ["mixtral", "gpt_oss", "deepseek_v3", "llama4_text", "dbrx", "nemotron_h", "gemma4",
          "muse_spark", "zaya", "inkling", "switch_transformers", "jetmoe", "nllb_moe", "doge"]
LONG = "MOE_TEST_LONG" in os.environ


@pytest.mark.filterwarnings(AS_IT_IS)
@pytest.mark.parametrize("family", [*MODELS, *BLOCKS] if LONG else SAMPLE)
def test_gpu_code(family):
    """In bf16 every product is a kernel of a GPU, and nothing is left to loops but routers that
    are not raised."""
    if family in BLOCKS:
        x = torch.randn(1, 6, H, dtype=torch.bfloat16)
        imported = moe.from_torch(BLOCKS[family]().bfloat16(), example=x)
    else:
        model = MODELS[family]()
        model.model.to(torch.bfloat16)
        imported = moe.from_torch(block_of(model))
    done = subprocess.run([moe.find_compiler(), "-", "--target=sm_90a", "-o", "/dev/null"],
                          input=imported.mlir, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    left = [line for line in done.stderr.splitlines()
            if " warning: " in line and "a router is left to loops" not in line]
    families.check(families.folder_of(family), gpu=family not in TABLES and not left)


@pytest.mark.parametrize("family", ["mixtral", "gpt_oss", "deepseek_v3", "qwen2_moe"])
def test_bf16(family, record):
    """Each operation rounds as it does in PyTorch; tolerances as for checkpoints."""
    model = MODELS[family]()
    model.model.to(torch.bfloat16)
    imported = moe.from_torch(block_of(model))
    assert "score(none)" not in raised(imported.mlir)
    x = model.rows_away_from_ties(33, torch.bfloat16)
    error = data.relative_error(imported.layer()(x).float().numpy(), model.run(x).float().numpy())
    record(f"{family} bf16", error)
    assert error < 8 * 2.0**-9


@pytest.mark.parametrize("family", ["mixtral", "deepseek_v3", "granitemoe"])
def test_bits_of_the_checkpoint(family, tmp_path):
    """The IR that is raised and that of the importer are the same layer, to the bit."""
    model = MODELS[family]()
    model.save(tmp_path, save_original_format=False)
    x = model.rows_away_from_ties(33, torch.float32)
    expected = moe.compile(tmp_path, layer=model.layer).layer(tmp_path)(x)
    assert torch.equal(moe.from_torch(block_of(model)).layer()(x), expected)


# -- other routers ------------------------------------------------------------


class Router(torch.nn.Module):
    """A block around experts of Mixtral; ``choose`` makes weights and ids of logits."""

    def __init__(self, choose, top_k=2):
        super().__init__()
        from moe_testing.models.experts import E, H, mixtral

        draw = torch.Generator().manual_seed(7)
        self.weight = torch.nn.Parameter(torch.randn(E, H, generator=draw))
        with torch.no_grad():
            self.experts = mixtral()
        self.experts.config._experts_implementation = "eager"
        self.choose, self.top_k = choose, top_k

    def forward(self, x):
        weights, ids = self.choose(x @ self.weight.T, self.top_k)
        return self.experts(x, ids, weights)


def wrong_axis(logits, k):
    """The softmax is over the tokens, which no gate of a token has."""
    return logits.softmax(0).topk(k, -1)


def sum_of_all(logits, k):
    """The denominator is the sum over all experts, which softmax had made 1, times 2."""
    scores = logits.sigmoid()
    values, ids = scores.topk(k, -1)
    return values / scores.sum(-1, keepdim=True), ids


def bias_in_weights(logits, k):
    """The weights have the bias, too."""
    scores = logits.sigmoid() + torch.linspace(-0.3, 0.3, logits.shape[-1])
    return scores.topk(k, -1)


def sizes_for_ids(logits, k):
    """What looks like ids is the order of the choices."""
    values, ids = logits.softmax(-1).topk(k, -1)
    return values, torch.arange(k).expand(ids.shape[0], k)


def smallest(logits, k):
    values, ids = (-logits).topk(k, -1)
    return (-values).softmax(-1), ids


def rotated(logits, k):
    """Ids of the next expert."""
    values, ids = logits.softmax(-1).topk(k, -1)
    return values, torch.where(ids + 1 == logits.shape[-1], 0, ids + 1)


def marked(logits, k):
    """The number of experts as an id: no choice."""
    values, ids = logits.softmax(-1).topk(k, -1)
    return values, ids.masked_fill(values < 0.3, logits.shape[-1])


def gathered_elsewhere(logits, k):
    """Weights of other scores than those of the selection."""
    ids = logits.topk(k, -1).indices
    return logits.tanh().gather(1, ids), ids


def negative_sum(logits, k):
    values, ids = (logits - 4).topk(k, -1)
    return values / values.sum(-1, keepdim=True), ids


def rounded_sum(logits, k):
    values, ids = logits.softmax(-1).topk(k, -1)
    return values / values.sum(-1, keepdim=True).bfloat16().float(), ids


def rounded_twice(logits, k):
    values, ids = logits.softmax(-1).half().bfloat16().topk(k, -1)
    return values.float(), ids


def masked(logits, groups, ids, fill):
    marks = torch.zeros(logits.shape[0], groups).scatter(1, ids, 1.0)
    size = logits.shape[-1] // groups
    mask = marks.unsqueeze(-1).expand(-1, groups, size).reshape(-1, groups * size)
    return logits.masked_fill(~mask.bool(), fill)


def masked_below_zero(logits, k):
    """Masked experts win with 0 against scores below it."""
    logits = logits[:, :4] - 4
    best = logits.view(-1, 2, 2).amax(-1).topk(1, -1).indices
    return masked(logits, 2, best, 0.0).topk(k, -1)


def other_groups(logits, k):
    """Two groups are ranked, and two of four are masked."""
    logits = logits[:, :4]
    best = logits.view(-1, 2, 2).amax(-1).topk(2, -1).indices
    return masked(logits, 4, best, -float("inf")).topk(k, -1)


def from_the_end(logits, k):
    """Indices below 0, sums of truth values, integers that are divided."""
    values, ids = logits.softmax(-1).topk(k, -1)
    factor = torch.linspace(1.0, 2.0, logits.shape[-1])[ids - logits.shape[-1]]
    both = (logits > 0.5).gather(1, ids) + (logits > 0.2).gather(1, ids)
    return values * factor + both.float() + ((ids * 3 + 1) // 2).float(), ids


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("choose", [
    negative_sum, rounded_sum, rounded_twice, masked_below_zero, other_groups, from_the_end,
    wrong_axis, sum_of_all, bias_in_weights, sizes_for_ids, smallest, rotated, marked,
    gathered_elsewhere], ids=lambda f: f.__name__)
def test_near_misses(choose, record):
    """Routers that look like a gate: whatever is recognised, the result is theirs."""
    from moe_testing.models.experts import H

    block = Router(choose).eval()
    x = torch.randn(29, H, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = block(x)
    y = moe.from_torch(block, example=x).layer()(x)
    error = data.relative_error(y.numpy(), expected.numpy())
    record(choose.__name__, error)
    assert error < F32


def test_loops_in_the_block():
    """A loop over experts that depends on the choice and is no module of its own."""

    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gate = torch.nn.Linear(8, 4)
            self.members = torch.nn.ModuleList(torch.nn.Linear(8, 8) for _ in range(4))

        def forward(self, x):
            ids = self.gate(x).argmax(-1)
            out = torch.zeros_like(x)
            for e in ids.unique().tolist():
                out[ids == e] = self.members[e](x[ids == e])
            return out

    block, x = Block().eval(), torch.randn(9, 8)
    imported = moe.from_torch(block)
    assert imported.mlir.count("moe.dispatch") == 1
    with torch.no_grad():
        assert data.relative_error(imported.layer()(x).numpy(), block(x).numpy()) < F32


def in_python(message, block, x):
    """A block that has no translation: a warning with the reason, and its own result."""
    with pytest.warns(UserWarning, match=f"runs in Python: .*{message}"):
        imported = moe.from_torch(block, example=x[..., :4, :])
    with torch.no_grad():
        expected = block(x)
    assert torch.equal(imported.layer()(x.reshape(-1, x.shape[-1])), expected.reshape(
        -1, x.shape[-1]))


def test_a_warning_says_what_stays():
    with pytest.warns(RuntimeWarning, match="a router is left to loops: no gate has the scores of"):
        moe.from_torch(Router(wrong_axis).eval(),
                       example=torch.zeros(4, Router(wrong_axis).weight.shape[1])).compile(
                           cache=False)


# -- experts that are written out ---------------------------------------------


class Expert(torch.nn.Module):
    def __init__(self, draw):
        super().__init__()
        self.up, self.down = torch.nn.Linear(H, 20), torch.nn.Linear(20, H)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=draw) / p.shape[-1] ** 0.5)

    def forward(self, x):
        return self.down(torch.nn.functional.gelu(self.up(x)))


class LoopedExperts(torch.nn.Module):
    """A loop over modules; ``spoil`` makes one of them, or the sum, something else."""

    def __init__(self, spoil=""):
        super().__init__()
        draw = torch.Generator().manual_seed(5)
        self.members = torch.nn.ModuleList(Expert(draw) for _ in range(6))
        self.spoil = spoil

    def forward(self, x, ids, weights):
        if self.spoil == "rows":
            x = x / x.shape[0]
        if self.spoil == "largest":
            x = x / x.abs().max()
        out = torch.zeros_like(x)
        for e, expert in enumerate(self.members):
            token, choice = torch.where(ids == e)
            y = expert(x[token]) * weights[token, choice, None]
            if self.spoil == "third" and e == 2:
                y = 2 * y
            out.index_add_(0, token, y)
        return out.relu() if self.spoil == "sum" else out


class LoopedBlock(torch.nn.Module):
    def __init__(self, spoil=""):
        super().__init__()
        self.gate = torch.nn.Linear(H, 6, bias=False)
        with torch.no_grad():
            self.gate.weight.copy_(torch.randn(6, H, generator=torch.Generator().manual_seed(2)))
        self.experts = LoopedExperts(spoil)

    def forward(self, x):
        weights, ids = self.gate(x).softmax(-1).topk(2, -1)
        return self.experts(x, ids, weights)


def test_loop_over_modules(record):
    block, x = LoopedBlock().eval(), torch.randn(31, H, generator=torch.Generator().manual_seed(3))
    imported = moe.from_torch(block, example=x)
    assert imported.weights["experts.members.*.up.weight"].shape == (6, 20, H)
    error = data.relative_error(imported.layer()(x).numpy(), block(x).detach().numpy())
    record("loop over modules", error)
    assert error < F32


def test_one_expert():
    class One(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gate = torch.nn.Linear(H, 1)
            self.experts = LoopedExperts()
            self.experts.members = self.experts.members[:1]

        def forward(self, x):
            weights, ids = self.gate(x).sigmoid().topk(1, -1)
            return self.experts(x, ids, weights)

    block, x = One().eval(), torch.randn(9, H)
    y = moe.from_torch(block, example=x).layer()(x)
    assert data.relative_error(y.numpy(), block(x).detach().numpy()) < F32


@pytest.mark.parametrize("spoil", ["third", "sum", "rows", "largest"])
def test_loops_that_are_something_else(spoil):
    in_python("LoopedExperts: the function of expert 0 is not that of all experts, or their "
              "results are not added", LoopedBlock(spoil).eval(), torch.randn(7, H))


# -- programs and errors ------------------------------------------------------


def test_exported_program():
    model = MODELS["mixtral"]()
    model.model.config._experts_implementation = "eager"

    class Linear(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a = torch.nn.Linear(8, 8)

        def forward(self, x):
            return torch.nn.functional.silu(self.a(x))

    module, x = Linear().eval(), torch.randn(5, 8)
    program = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim("n", min=2)},))
    y = moe.from_torch(program).layer()(x)
    assert data.relative_error(y.numpy(), module(x).detach().numpy()) < F32


def test_training_mode():
    with pytest.raises(moe.MoEError, match="is in training mode, expected evaluation mode"):
        moe.from_torch(Router(wrong_axis).train(), example=torch.zeros(4, 8))


@pytest.mark.parametrize("choose, message", [
    (lambda v, k: [t[:, -k:] for t in v.sort(-1)], "has no translation to MLIR"),
    (lambda v, k: [t.T for t in v.T.topk(k, 0)], "along another dimension"),
])
def test_routers_without_translation(choose, message):
    block = Router(choose).eval()
    in_python(message, block, torch.randn(7, block.weight.shape[1]))


def linear(columns=8):
    return torch.nn.Linear(columns, columns).eval()


class Of(torch.nn.Module):
    """A module with one matrix that computes ``function`` of its rows."""

    def __init__(self, function):
        super().__init__()
        self.matrix, self.function = torch.nn.Parameter(torch.ones(8, 8)), function

    def forward(self, x):
        return self.function(self.matrix, x)


@pytest.mark.parametrize("function, message", [
    (lambda m, x: x.cumprod(-2), "cumprod.default, which has no translation"),
    (lambda m, x: x * (x.shape[-2] % 3), "of the number of tokens, which has no translation"),
    (lambda m, x: x[..., :1].expand(x.shape).scatter(
        -1, torch.zeros(x.shape, dtype=torch.int64), x, reduce="add"), "with reduce='add'"),
    (lambda m, x: torch.addmm(x[0], x[0], m, beta=0.5), "scales a matmul in aten.addmm"),
    (lambda m, x: x.index_select(-1, torch.arange(8)), "along another dimension than the first"),
    (lambda m, x: x[0, 0] + x, "selects a token"),
    (lambda m, x: x.norm(float("inf"), -1, keepdim=True) + x, "the norm of order inf"),
])
def test_what_has_no_translation(function, message):
    in_python(message, Of(function).eval(), torch.randn(1, 8, 8))


@pytest.mark.filterwarnings(AS_IT_IS)
@pytest.mark.parametrize("function", [
    lambda m, x: x / x.shape[-2],
    lambda m, x: x * math.ceil(0.3 * x.shape[-2]),
    lambda m, x: x.mean(-2, keepdim=True) + x,
    lambda m, x: x.cumsum(-2) + x.cumsum(-1),
    lambda m, x: x * ((x > 0).cumsum(-2) <= x.shape[-2] // 3),
    lambda m, x: x + (x > 0).sum(-2, keepdim=True),
    lambda m, x: x * (x.argmax(-1, keepdim=True) + 1),
    lambda m, x: x.max(-1, keepdim=True).values - x,
])
@pytest.mark.parametrize("tokens", [1, 32, 33])
def test_sums_over_tokens(function, tokens):
    """The result of a token depends on others, and on how many there are."""
    block, x = Of(function).eval(), torch.randn(1, tokens, 8)
    with torch.no_grad():
        expected = block(x)
    y = moe.from_torch(block).layer()(x[0])
    assert data.relative_error(y.numpy(), expected[0].numpy()) < F32


class Masked(torch.nn.Module):
    """Experts that get a mask ``[T, K, E]`` in place of ids; ``make`` makes it of logits."""

    def __init__(self, make):
        super().__init__()
        draw = torch.Generator().manual_seed(2)
        self.gate = torch.nn.Parameter(torch.randn(6, H, generator=draw))
        self.experts, self.make = MaskedExperts(), make

    def forward(self, x):
        logits = x @ self.gate.T
        weights, mask = self.make(logits)
        return self.experts(x, mask, weights)


class MaskedExperts(LoopedExperts):
    def forward(self, x, mask, weights):
        out = torch.zeros_like(x)
        for e, expert in enumerate(self.members):
            token, choice = torch.where(mask[..., e])
            out.index_add_(0, token, expert(x[token]) * weights[token, choice, None])
        return out


def one_hot(ids, count=6):
    return torch.nn.functional.one_hot(ids, count)


def best_mask(logits):
    weights, ids = logits.softmax(-1).topk(2, -1)
    return weights, one_hot(ids)


def dropped_mask(logits):
    """With a capacity, counted over both choices."""
    weights, ids = logits.softmax(-1).topk(2, -1)
    mask = one_hot(ids)
    return weights, mask * (mask.flatten(0, 1).cumsum(0).view_as(mask) <= 4)


def some_mask(logits):
    """Any number of experts."""
    return logits.sigmoid().amax(-1, keepdim=True), (logits > 0.5).unsqueeze(1).long()


def shifted_mask(logits):
    """Marks of the next expert; a sum of masks marks two."""
    weights, ids = logits.softmax(-1).topk(2, -1)
    mask = one_hot(ids + 1, 7)[..., 1:] + one_hot((ids + 1) % 6)
    return weights, mask


def transposed_mask(logits):
    """Marks along the choices: square, in the other layout."""
    weights, ids = logits.softmax(-1).topk(6, -1)
    return weights, one_hot(ids).transpose(1, 2)


@pytest.mark.parametrize("make, choices", [
    (best_mask, 2), (dropped_mask, 2), (some_mask, 6), (shifted_mask, 12), (transposed_mask, 36)],
    ids=lambda v: getattr(v, "__name__", None))
def test_masks(make, choices):
    block, x = Masked(make).eval(), torch.randn(31, H, generator=torch.Generator().manual_seed(3))
    imported = moe.from_torch(block, example=x)
    assert f"tensor<?x{choices}xi32>\n" in imported.mlir.split("moe.dispatch")[1]
    with torch.no_grad():
        assert data.relative_error(imported.layer()(x).numpy(), block(x).numpy()) < F32


def test_modules_that_change_themselves():
    """What a call assigns to the module is not there after a trace."""

    class Changing(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.matrix = torch.nn.Linear(8, 8)

        def forward(self, x):
            self.matrix = self.matrix.to(torch.float32)
            self.last, self.tokens = x.dtype, x.shape[-2]
            return self.matrix(x.float()).to(self.last)

    module = Changing().bfloat16().eval()
    before = dict(module.__dict__), module.matrix, module.matrix.weight
    with pytest.warns(UserWarning, match="has nothing that is known as experts"):
        layer = moe.from_torch(module).layer()
    assert (dict(module.__dict__), module.matrix, module.matrix.weight) == before
    assert module.matrix.weight.dtype == torch.bfloat16
    x = torch.randn(5, 8).bfloat16()
    assert torch.equal(layer(x), module(x))


class Remembers(torch.nn.Module):
    """What a call leaves behind in ``last`` is added in the next one."""

    def __init__(self, last, leave):
        super().__init__()
        self.matrix, self.last, self.leave = torch.nn.Linear(8, 8), last, leave

    def forward(self, x):
        y = self.matrix(x) + self.last
        self.leave(self, y)
        return y


def leave_number(module, y):
    module.last += 1.0


def leave_tensor(module, y):
    module.last = y[..., -1, :].detach()


def leave_in_place(module, y):
    module.last.copy_(y.reshape(-1, 8)[-1].detach())


@pytest.mark.parametrize("last, leave", [
    (0.0, leave_number), (torch.zeros(8), leave_tensor), (torch.zeros(8), leave_in_place)])
@pytest.mark.parametrize("example", [None, torch.zeros(4, 8)])
def test_modules_that_remember(last, leave, example):
    """They run in Python, whether the trace is given rows or makes them."""
    block = Remembers(copy.deepcopy(last), leave).eval()
    with pytest.warns(UserWarning, match="Remembers runs in Python: .*"):
        imported = moe.from_torch(block, example=example)
    assert "computes something else in each call" in imported.reason or (
        "last is mutated in the forward" in imported.reason)


def test_what_is_returned():
    with pytest.raises(moe.MoEError, match="Of returns a dict, expected rows, alone or first"):
        moe.from_torch(Of(lambda m, x: {"y": x @ m}).eval())
    block, x = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 5)).eval(), (
        torch.randn(3, 8))
    with pytest.warns(UserWarning, match="nothing that is known as experts"):
        imported = moe.from_torch(block)
    assert data.relative_error(imported.layer()(x).numpy(), block(x).detach().numpy()) < F32
    assert imported.module()(torch.randn(2, 3, 8)).shape == (2, 3, 5)


class Normalized(torch.nn.Module):
    """Norms before the router and in every expert."""

    def __init__(self, norm):
        super().__init__()
        draw = torch.Generator().manual_seed(4)
        self.norm, self.gate = norm(H), torch.nn.Linear(H, 4)
        self.members = torch.nn.ModuleList(torch.nn.Sequential(
            torch.nn.Linear(H, 20), norm(20), torch.nn.ReLU(), torch.nn.Linear(20, H))
            for _ in range(4))
        with torch.no_grad():
            for t in [*self.parameters(), *self.buffers()]:
                if t.is_floating_point():
                    t.copy_(torch.rand(t.shape, generator=draw) + (-0.5 if t.ndim > 1 else 0.5))

    def forward(self, x):
        x = self.norm(x)
        weights, ids = self.gate(x).softmax(-1).topk(2, -1)
        y = torch.zeros_like(x)
        for e, expert in enumerate(self.members):
            token, choice = torch.where(ids == e)
            y.index_add_(0, token, expert(x[token]) * weights[token, choice, None])
        return y.nan_to_num(nan=7.0)


@pytest.mark.filterwarnings("ignore:.*an expert is left to loops")
@pytest.mark.parametrize("norm", [
    torch.nn.LayerNorm, lambda n: torch.nn.LayerNorm(n, bias=False, eps=0.1),
    lambda n: torch.nn.LayerNorm(n, elementwise_affine=False), torch.nn.RMSNorm,
    torch.nn.BatchNorm1d, lambda n: torch.nn.BatchNorm1d(n, affine=False)])
def test_norms(norm):
    block, x = Normalized(norm).eval(), torch.randn(17, H) * 3 + 1
    x[3] = torch.nan
    imported = moe.from_torch(block)
    assert imported.mlir.count("moe.dispatch") == 1
    with torch.no_grad():
        assert data.relative_error(imported.layer()(x).numpy(), block(x).numpy()) < F32


def test_rows_that_cannot_be_seen():
    with pytest.raises(moe.MoEError, match="ReLU has no matrix in f32, bf16 or f16"):
        moe.from_torch(torch.nn.ReLU().eval())
    program = torch.export.export(linear(), (torch.zeros(4, 8),))
    with pytest.raises(moe.MoEError, match=r"the program takes \(4, 8\), expected \[T, H\]"):
        moe.from_torch(program)
    two = torch.export.export(Of(lambda m, x: x[0] + x[1]).eval(),
                              ((torch.zeros(4, 8), torch.zeros(4, 8)),))
    with pytest.raises(moe.MoEError, match="the program takes 2 tensors, expected one: its rows"):
        moe.from_torch(two)
