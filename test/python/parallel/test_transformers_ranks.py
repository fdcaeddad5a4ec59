"""Experts of transformers' models over ranks, against transformers' own expert parallelism."""

from __future__ import annotations

from pathlib import Path

import moe
import numpy as np
import pytest
from moe_testing import data, processes

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("transformers.distributed.expert_parallel")

CHECKPOINT = Path(__file__).resolve().parents[2] / "data" / "tiny-mixtral"
EXPERTS, K, H, INTERMEDIATE = 8, 4, 64, 32
COUNTS = {2: [25, 12], 3: [0, 30, 7]}


def experts(dtype):
    """An experts module of transformers with weights of all experts, and routes of tokens."""
    import torch
    from transformers import Qwen3MoeConfig
    from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeExperts

    config = Qwen3MoeConfig(hidden_size=H, moe_intermediate_size=INTERMEDIATE,
                            num_experts=EXPERTS, num_experts_per_tok=K)
    config._experts_implementation = "grouped_mm"
    torch.manual_seed(1)
    module = Qwen3MoeExperts(config).to(dtype)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    tokens = sum(COUNTS[2])
    ids = torch.stack([torch.randperm(EXPERTS)[:K] for _ in range(tokens)])
    return module, (torch.randn(tokens, H).to(dtype), ids, torch.rand(tokens, K).to(dtype))


def sharded(module, size, rank):
    """The module with the experts of one rank, as transformers' styles leave it."""
    each = -(-EXPERTS // size)
    for name, parameter in list(module.named_parameters()):
        setattr(module, name, torch.nn.Parameter(
            parameter.detach()[rank * each:(rank + 1) * each].clone()))
    module.num_experts = module.down_proj.shape[0]
    module._is_expert_parallel = True
    return module


def run_experts(group, dtype, with_peer):
    """The rows of this rank: by our implementation, before and after all ranks changed their
    weights, and by transformers' all-to-all and all-reduce, for which ranks share a batch."""
    import moe.integrations.transformers as compiled_experts
    import torch
    from torch.distributed.device_mesh import init_device_mesh
    from transformers.distributed.expert_parallel import EPImplementationInterface

    compiled_experts.register(num_threads=1, deadline=20)
    size, rank = group.size(), group.rank()
    mesh = init_device_mesh("cpu", (size, 1), mesh_dim_names=("ep", "tp"))
    whole, arguments = experts(getattr(torch, dtype))
    begin = sum(COUNTS[size][:rank])
    own = [t[begin:begin + COUNTS[size][rank]] for t in arguments]
    module, found = sharded(whole, size, rank), []
    with torch.no_grad():
        for name in ("moe_mlir", *(("all_to_all",) if with_peer else ())):
            implementation = EPImplementationInterface()[name](module, mesh["ep"], mesh["tp"])
            found.append(implementation(*own).float().numpy())
            if name == "moe_mlir":
                assert compiled_experts.layer_of(module).exchange.rounds == 1
                module.down_proj.mul_(2)
                found.append(implementation(*own).float().numpy())
                module.down_proj.mul_(0.5)
        if with_peer:
            shared = init_device_mesh("cpu", (size,), mesh_dim_names=("tp",))["tp"]
            implementation = EPImplementationInterface()["all_reduce"](module, shared, shared)
            rows = implementation(*arguments)[begin:begin + COUNTS[size][rank]]
            found.append(rows.float().numpy())
    with pytest.raises(moe.MoEError, match="experts over several ranks have no gradients yet"):
        EPImplementationInterface()["moe_mlir"](module, mesh["ep"], mesh["tp"])(*own)
    return found


@pytest.mark.parametrize("dtype", ("float32", "bfloat16"))
@pytest.mark.parametrize("size", COUNTS)
def test_experts(size, dtype):
    import moe.integrations.transformers as compiled_experts

    compiled_experts.register(num_threads=1)
    module, arguments = experts(getattr(torch, dtype))
    module.config._experts_implementation = "moe_mlir"
    with torch.no_grad():
        one_rank = module(*arguments).float().numpy()
    # transformers does not divide 8 experts by 3.
    results = processes.run(size, run_experts, dtype, size == 2)
    ours, doubled, *peer = (np.concatenate(each) for each in zip(*results))
    assert (ours == one_rank).all()
    assert (doubled == 2 * one_rank).all()
    for theirs in peer:
        tolerance = data.TOLERANCE["f32" if dtype == "float32" else "bf16"]
        assert abs(ours - theirs).max() <= tolerance * abs(theirs).max()


def run_model(group, sizes, uneven):
    """The logits of a model, what it generates, and the bytes that its experts sent."""
    import moe.integrations.transformers as compiled_experts
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.distributed.configuration_utils import DistributedConfig
    from transformers.integrations import accelerate

    # It is asked for where a device is named, and not called for a single one.
    accelerate.is_accelerate_available = lambda: True
    compiled_experts.register(num_threads=1, deadline=20)
    name = "model.layers.*.mlp.experts"
    plan = {f"{name}.{p}": "moe_mlir_experts" for p in ("gate_up_proj", "down_proj")}
    model = AutoModelForCausalLM.from_pretrained(CHECKPOINT, distributed_config=DistributedConfig(
        ep_size=group.size(), ep_implementation="moe_mlir", ep_plan=plan if uneven else None,
        **sizes))
    module = model.model.layers[1].mlp.experts
    local = module.down_proj.to_local().shape[0]
    with torch.no_grad():
        logits = model(prompt()).logits
        text = model.generate(prompt(), max_new_tokens=6, do_sample=False)
    exchange = compiled_experts.layer_of(module).exchange
    return getattr(logits, "full_tensor", lambda: logits)().numpy(), text.numpy(), local, exchange


def prompt():
    return torch.arange(40).reshape(2, 20) % 250


@pytest.mark.parametrize(("size", "sizes", "uneven", "locals_"), [
    (2, {"tp_size": 2}, False, [4, 4]),       # ranks share a batch
    (2, {"fsdp_size": 2}, False, [4, 4]),     # ranks have batches of their own
    (3, {"fsdp_size": 3}, True, [3, 3, 2]),   # which transformers' own rule refuses
])
def test_model(size, sizes, uneven, locals_):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(CHECKPOINT)
    with torch.no_grad():
        logits = model(prompt()).logits.numpy()
        text = model.generate(prompt(), max_new_tokens=6, do_sample=False).numpy()
    results = processes.run(size, run_model, sizes, uneven)
    assert [local for _, _, local, _ in results] == locals_
    for ours, generated, _, exchange in results:
        assert abs(ours - logits).max() <= data.TOLERANCE["f32"] * abs(logits).max()
        assert (generated == text).all()
        assert exchange.rows_sent > 0
