"""Blocks of transformers, traced, compiled and compared with themselves."""

from __future__ import annotations

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


@pytest.mark.parametrize("family", ["mixtral", "deepseek_v3", "granitemoe", "llama4_text"])
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
    # Far from 0, where a quotient would have the rounding of the logits many times.
    values, ids = (logits - 40).topk(k, -1)
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


class Weights(torch.nn.Module):
    """The weights alone of two choices; ``guard`` keeps their sum from zero."""

    def __init__(self, guard, dtype):
        super().__init__()
        draw = torch.Generator().manual_seed(7)
        self.matrix = torch.nn.Parameter(torch.randint(-3, 4, (8, 16), generator=draw).to(dtype))
        self.guard = guard

    def forward(self, x):
        values, _ = (x @ self.matrix.T).relu().topk(2, -1)
        return values / self.guard(values.sum(-1, keepdim=True))


@pytest.mark.filterwarnings(AS_IT_IS)
@pytest.mark.parametrize("guard", [
    lambda s: s + 1e-20, lambda s: s + 1e-3, lambda s: s + 0.3, lambda s: s.clamp(min=5.0)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_denominators(dtype, guard):
    """Rounded as torch rounds them, to the bit: sums of integers, and no function but a max."""
    block = Weights(guard, dtype).eval()
    x = torch.randint(-9, 10, (64, 16), generator=torch.Generator().manual_seed(3)).to(dtype)
    imported = moe.from_torch(block, example=x)
    assert "moe.gate" in raised(imported.mlir) and "arith.divf" not in raised(imported.mlir)
    with torch.no_grad():
        expected = block(x)
    some = ~expected.isnan().any(-1)  # 0 / 0, where a gate has weights of 0
    assert some.sum() > 60 and torch.equal(imported.layer()(x)[some], expected[some])


def rounded_bias(logits, k):
    scores = logits.sigmoid()
    ids = (scores + torch.linspace(-0.3, 0.3, logits.shape[-1], dtype=scores.dtype)).topk(k).indices
    return scores.gather(1, ids), ids


def test_a_rounded_bias():
    """It makes ties that a gate does not have: the router stays, and a warning says why."""
    block = Router(rounded_bias).bfloat16().eval()
    x = torch.randn(29, block.weight.shape[1], generator=torch.Generator().manual_seed(3))
    x = x.bfloat16()
    with pytest.warns(RuntimeWarning, match="with their bias they are rounded to bf16"):
        layer = moe.from_torch(block, example=x).layer(cache=False)
    with torch.no_grad():
        expected = block(x)
    assert data.relative_error(layer(x).float().numpy(), expected.float().numpy()) < 8 * 2.0**-9


def test_a_warning_says_what_stays():
    with pytest.warns(RuntimeWarning, match="a router is left to loops: no gate has the scores of"):
        moe.from_torch(Router(wrong_axis).eval(),
                       example=torch.zeros(4, Router(wrong_axis).weight.shape[1])).compile(
                           cache=False)


def test_training_mode():
    with pytest.raises(moe.MoEError, match="is in training mode, expected evaluation mode"):
        moe.from_torch(Router(wrong_axis).train(), example=torch.zeros(4, 8))


@pytest.mark.parametrize("choose, message", [
    (lambda v, k: [t[:, -k:] for t in v.sort(-1)], "has no translation to MLIR"),
    (lambda v, k: [t.T for t in v.T.topk(k, 0)], "along another dimension"),
])
def test_routers_without_translation(choose, message):
    block = Router(choose).eval()
    x = torch.randn(7, block.weight.shape[1])
    with pytest.warns(UserWarning, match=f"runs in Python: .*{message}"):
        imported = moe.from_torch(block, example=x)
    with torch.no_grad():
        assert torch.equal(imported.layer()(x), block(x))
