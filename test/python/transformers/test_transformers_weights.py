"""Weights of compiled experts that change in other ways than a write to a parameter."""

from __future__ import annotations

import copy
import warnings

import pytest

import moe

np = pytest.importorskip("numpy")
torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import moe.integrations.transformers as ce  # noqa: E402
from moe_testing.models.experts import (  # noqa: E402
    E, F32, H, I, T, expect, make, mixtral, relative, route, run)
from moe_testing.models.hf import MODELS  # noqa: E402

pytestmark = pytest.mark.usefixtures("inference")


def check(experts, arguments=None):
    arguments = arguments or route(T)
    assert relative(experts(*arguments), run(experts, "eager", *arguments)) <= F32


class Scaled(torch.nn.Module):
    scale = 1.0

    def forward(self, w):
        return w * self.scale

    def step(self):
        self.scale += 1


class LoRA(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a = torch.nn.Parameter(torch.randn(E, 2, I))
        self.b = torch.nn.Parameter(torch.zeros(E, H, 2))

    def forward(self, w):
        return w + self.b @ self.a

    def step(self):
        self.b += torch.randn(self.b.shape)


class FakeQuantized(torch.nn.Module):
    scale = 0.01

    def forward(self, w):
        return torch.fake_quantize_per_tensor_affine(w, self.scale, 0, -128, 127)

    def step(self):
        self.scale *= 1.7


@pytest.mark.parametrize("kind", [Scaled, LoRA, FakeQuantized])
def test_computed_weights(kind):
    """Each call has those of now, whatever addresses and versions they get."""
    experts, how = mixtral(), kind()
    check(experts)
    torch.nn.utils.parametrize.register_parametrization(experts, "down_proj", how)
    with pytest.warns(UserWarning) as caught:
        for _ in range(5):
            check(experts)
            how.step()
    assert len(caught) == 1
    text = str(caught[0].message)
    assert "down_proj is computed by every access" in text and " bytes, which took " in text
    # Folded in, they are followed again.
    torch.nn.utils.parametrize.remove_parametrizations(experts, "down_proj")
    check(experts)
    layer = ce.layer_of(experts)
    check(experts)
    assert ce.layer_of(experts) is layer


def test_computed_weights_that_are_kept():
    experts, how = mixtral(), Scaled()
    torch.nn.utils.parametrize.register_parametrization(experts, "down_proj", how)
    with torch.nn.utils.parametrize.cached(), warnings.catch_warnings():
        warnings.simplefilter("error")
        check(experts)
        layer = ce.layer_of(experts)
        check(experts)
        assert ce.layer_of(experts) is layer


def test_another_tensor_at_the_same_address():
    experts = mixtral()
    memory = experts.down_proj.numpy().copy()
    for replace in (lambda t: setattr(experts, "down_proj", torch.nn.Parameter(t)),
                    lambda t: setattr(experts.down_proj, "data", t)):
        for _ in range(3):
            replace(torch.from_numpy(memory))
            check(experts)
            experts(*route(T))
            before = experts.down_proj.data_ptr(), experts.down_proj._version
            memory *= 2
            replace(torch.from_numpy(memory))
            assert before == (experts.down_proj.data_ptr(), experts.down_proj._version)
            check(experts)
            experts(*route(T))


def test_another_tensor_of_the_same_storage():
    """It counts its own writes."""
    experts = mixtral()
    check(experts)
    other = torch.nn.Parameter(experts.down_proj.data)
    while other._version < experts.down_proj._version:
        other.mul_(2)
    assert experts.down_proj._version > 0
    experts.down_proj = other
    check(experts)


def test_another_view_of_the_same_elements():
    experts = mixtral(intermediate_size=H)
    check(experts)
    experts.down_proj.data = experts.down_proj.data.transpose(1, 2)
    check(experts)


def test_functional_call():
    experts, arguments = mixtral(), route(T)
    check(experts)
    for factor in (2, 3):
        given = {"down_proj": factor * experts.down_proj}
        for _ in range(2):
            actual = torch.func.functional_call(experts, given, arguments)
        assert relative(actual, factor * experts(*arguments)) <= F32


def test_writes_in_inference_mode():
    """torch counts those to tensors that were made in that mode nowhere."""
    with torch.inference_mode(), pytest.warns(UserWarning, match="was made in inference mode"):
        experts = mixtral()
        check(experts)
        experts.down_proj.mul_(2)
        check(experts)


def test_weights_that_change_before_every_call():
    experts = mixtral()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(4):
            check(experts)
            experts(*route(T))
            experts.down_proj.mul_(2)
    with pytest.warns(UserWarning, match="down_proj was changed or replaced before each"):
        for _ in range(4):
            experts.down_proj.mul_(-1)
            check(experts)


@pytest.fixture
def process_group():
    distributed = pytest.importorskip("torch.distributed")
    if not distributed.is_available() or distributed.is_initialized():
        pytest.skip("needs a process group of its own")
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield distributed
    distributed.destroy_process_group()


def test_unsharded_parameters(process_group):
    """FSDP gathers into the same tensors again, past torch's counters."""
    from torch.distributed.fsdp import fully_shard

    experts, eager, arguments = mixtral(), mixtral(), route(T)
    mesh = process_group.device_mesh.init_device_mesh("cpu", (1,))
    fully_shard(experts, mesh=mesh, reshard_after_forward=True)
    with pytest.warns(UserWarning, match="is gathered by FSDP"):
        for _ in range(3):
            assert relative(experts(*arguments), run(eager, "eager", *arguments)) <= F32
            experts.reshard()
            experts.down_proj.mul_(2)
            eager.down_proj.mul_(2)


# -- freed weights --------------------------------------------------------------


def test_freed_weights_have_no_other_implementation():
    model = MODELS["mixtral"]().model
    tokens, weights = torch.arange(1, 20)[None], copy.deepcopy(model.state_dict())
    expected = model(tokens).logits
    ce.prepare(model, free_weights=True, progress=False)
    message = "the weights were freed after they had been prepared for 'moe_mlir'"
    with expect(message):
        model.set_experts_implementation("eager")
    assert relative(model(tokens).logits, expected) <= 10 * F32
    model.config._experts_implementation = "eager"
    with expect(f"MixtralExperts: {message}, so that 'eager' has none"):
        model(tokens)
    model.load_state_dict(weights, assign=True)
    assert torch.equal(model(tokens).logits, expected)


def test_freed_weights_of_inference_mode():
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        experts, arguments = mixtral(), route(T)
        expected = run(experts, "eager", *arguments)
        ce.prepare(experts, free_weights=True, progress=False)
        assert relative(experts(*arguments), expected) <= F32


# -- types that differ -----------------------------------------------------------


# transformers' grouped products want rows of whole 16 bytes.
WIDE = dict(hidden_size=16, intermediate_size=16)


def wide():
    _, ids, weights = route(T)
    return torch.randn(T, 16, generator=torch.Generator().manual_seed(4)), ids, weights


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_hidden_states_of_another_type(dtype):
    """They are cast to the type of the weights and back, as transformers does."""
    x, ids, weights = wide()
    half, whole = mixtral(dtype, **WIDE), mixtral(**WIDE)
    for experts, rows in ((half, x), (whole, x.to(dtype)), (half, x.double())):
        actual = experts(rows, ids, weights)
        grouped = run(experts, "grouped_mm", rows, ids, weights)
        assert actual.dtype is grouped.dtype is rows.dtype
        assert relative(actual, grouped) <= 4 * torch.finfo(dtype).eps


def test_autocast():
    experts, before, (x, ids, weights) = mixtral(**WIDE), torch.nn.Linear(16, 16), wide()
    with torch.autocast("cpu", torch.bfloat16):
        x = before(x)
        assert x.dtype is torch.bfloat16
        actual, grouped = experts(x, ids, weights), run(experts, "grouped_mm", x, ids, weights)
    assert actual.dtype is torch.bfloat16
    assert relative(actual, grouped) <= 2.0 ** -7


@pytest.mark.parametrize(("dtype", "of_bias"), [
    (torch.bfloat16, torch.float32), (torch.float16, torch.float32),
    (torch.float32, torch.bfloat16)])
def test_biases_of_another_type(dtype, of_bias):
    experts = make("transformers.models.gpt_oss.modeling_gpt_oss", "GptOssExperts", dtype)
    for name, parameter in experts.named_parameters():
        if name.endswith("_bias"):
            parameter.data = parameter.data.to(of_bias)
    x, ids, weights = route(T, dtype)
    actual, batched = experts(x, ids, weights), run(experts, "batched_mm", x, ids, weights)
    assert actual.dtype is dtype
    assert relative(actual, batched) <= (F32 if dtype is torch.float32
                                         else 4 * torch.finfo(dtype).eps)


def test_gradients_of_what_computes_the_weights():
    """A backward pass leads out of the module."""
    class Experts(type(mixtral())):
        factor = torch.nn.Parameter(torch.tensor(2.0))

        @property
        def down_proj(self):
            return self.factor * self._parameters["down"]

    experts, arguments = mixtral(), route(T)
    experts.register_parameter("down", torch.nn.Parameter(experts.down_proj.clone(), False))
    del experts.down_proj
    experts.__class__ = Experts
    for parameter in experts.parameters():
        parameter.requires_grad_(False)
    with torch.enable_grad():
        actual, expected = (torch.autograd.grad(run(experts, name, *arguments).sum(),
                                                experts.factor)[0] for name in (ce.NAME, "eager"))
    assert relative(actual, expected) <= F32
