"""Layers of the families of transformers 5, against transformers' own code.

As test_import_hf.py, whose families every setting is tested with; here each has one
model, and what only one of them has is tested once.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from moe_testing import families
from moe_testing.models import hf
from moe_testing.models.checkpoints import (
    TOLERANCE, TORCH, check, compile_layer, edit, ir_of, numpy_of, refused, relative_error,
    replace_tensors)
from moe_testing.models.hf import MODELS
from moe_testing.models.hf_families import WRAPPERS

FAMILIES = [name for name in MODELS if name not in hf.BASE]

# Saved with other names than the importer expects of a checkpoint that is not there:
# transformers' own, or one of both, or a tensor that published checkpoints lack.
OTHER_NAMES = {
    "axk1", "deepseek_ocr2_text", "glm4v_moe_text", "granitemoe_swa", "hy_v4", "hy_v4_vl_text",
    "minimax_m3_vl_text", "mistral_large4_text", "qwen3_5_moe_text", "qwen3_omni_moe_talker_text",
    "qwen3_vl_moe_text"}


def without_prefixes(ir: str) -> str:
    return re.sub(r'"[\w.]*layers\.1\.', '"', ir)


@pytest.mark.parametrize("family", FAMILIES)
def test_against_transformers(compiled, tmp_path, record, family):
    """With the tensors of published checkpoints, which transformers saves by default."""
    model = MODELS[family]()
    model.save(tmp_path / "model")
    record(f"{family} f32", check(compiled, tmp_path / "model", model, "f32"))
    if family in OTHER_NAMES:
        return
    # And the configuration alone names them.
    (tmp_path / "alone").mkdir()
    shutil.copy(tmp_path / "model" / "config.json", tmp_path / "alone")
    assert (without_prefixes(ir_of(compiled, tmp_path / "alone", 1))
            == without_prefixes(ir_of(compiled, tmp_path / "model", 1)))


@pytest.mark.parametrize("family", FAMILIES)
def test_names_of_transformers_5(compiled, tmp_path, family):
    model = MODELS[family]()
    model.save(tmp_path, save_original_format=False)
    check(compiled, tmp_path, model, "f32")


@pytest.mark.parametrize("family, options", [
    ("lfm2_moe", {}), ("laguna", {}), ("deepseek_v4", {}),
    ("cohere2_moe", dict(num_shared_experts=1)),
    ("cohere2_moe", dict(expert_selection_fn="sigmoid")), ("mistral4", {}), ("lara_mini", {}),
    ("afmoe", {}), ("ernie4_5_moe", {}), ("minimax_m2", {}), ("aria_text", {})])
def test_rounding(compiled, tmp_path, record, family, options):
    """Families that round where others do not."""
    model = MODELS[family](**options)
    model.model.to(torch.bfloat16)
    model.save(tmp_path)
    record(f"{family} {options} bf16", check(compiled, tmp_path, model, "bf16"))


@pytest.mark.parametrize("family, options", [
    ("cohere2_moe", dict(expert_selection_fn="sigmoid", shared_expert_combination_strategy="sum")),
    ("hunyuan_v1_moe", dict(moe_topk=[2, 3])), ("axk2", dict(n_group=None, topk_group=None)),
    ("nemotron_h", dict(moe_latent_size=None, mlp_bias=False))])
def test_settings(compiled, tmp_path, family, options):
    model = MODELS[family](**options)
    model.save(tmp_path)
    check(compiled, tmp_path, model, "f32")


# --------------------------------------------------------------------------
# What transformers does not save
# --------------------------------------------------------------------------


@pytest.mark.parametrize("family, changes", [
    # transformers saves the list of words that these keys of published models mean.
    ("minimax_m3_vl_text", dict(mlp_layer_types=..., moe_layer_freq=[0, 1])),
    ("nemotron_h", dict(layers_block_type=..., hybrid_override_pattern="*E")),
    ("kimi_linear", dict(mlp_layer_types=..., first_k_dense_replace=1)),
    ("glm4_moe_lite", dict(mlp_layer_types=None)),
    ("mimo_v2_flash", dict(mlp_layer_types=..., moe_layer_freq=[0, 1])),
])
def test_layers_by_other_keys(compiled, tmp_path, family, changes):
    MODELS[family]().save(tmp_path)
    expected = ir_of(compiled, tmp_path, 1)
    edit(tmp_path, **changes)
    assert ir_of(compiled, tmp_path, 1) == expected
    assert "layer 0 has no experts; layers with experts: 1" in refused(
        compiled, tmp_path, "--layer=0")


def test_transposed_experts(compiled, tmp_path):
    """Qwen3-VL is published [in, out], and saved as [out, in] with the same names."""
    model = MODELS["qwen3_vl_moe_text"]()
    model.save(tmp_path)

    def transpose(tensors):
        for name, tensor in tensors.items():
            if ".experts." in name:
                tensors[name] = tensor.transpose(1, 2).contiguous()

    replace_tensors(tmp_path, transpose)
    check(compiled, tmp_path, model, "f32")


def test_without_the_optional_bias(compiled, tmp_path):
    """A.X-K1 is published without the bias of its selection."""
    model = MODELS["axk1"]()
    hf.mlp(model.model).gate.e_score_correction_bias.zero_()
    model.save(tmp_path)
    replace_tensors(tmp_path, lambda t: t.pop("model.layers.1.mlp.gate.e_score_correction_bias"))
    check(compiled, tmp_path, model, "f32")


def test_dropped_groups_score_0(compiled, tmp_path):
    """In A.X-K2, which is more than an expert of a kept group with a negative bias."""
    model = MODELS["axk2"](topk_group=3)
    bias = hf.mlp(model.model).gate.e_score_correction_bias
    bias.sub_(0.8)
    model.save(tmp_path)
    x = torch.randn((800, hf.H), generator=torch.Generator().manual_seed(3))
    groups = (model.logits(x).sigmoid() + bias).unflatten(-1, (4, 2))
    groups[torch.arange(len(x)), groups.sum(-1).argmin(-1)] = -1.0
    # Two experts are dropped: of equal ones, both are chosen or none.
    positive = (groups > 0).flatten(1).sum(-1)
    rows = [x[positive < 2][:20], x[positive > 2][:20]]
    assert [len(r) for r in rows] == [20, 20]
    x = torch.cat(rows)
    y = compile_layer(compiled, tmp_path, 1)(x.numpy())
    assert relative_error(y, model.run(x)) < TOLERANCE["f32"]


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
@pytest.mark.parametrize("original", [True, False])
def test_hash_layer(compiled, tmp_path, record, original, dtype):
    """A table has the experts of each token; here with tokens that use none of others."""
    model = MODELS["deepseek_v4"]()
    block = model.model.model.layers[0].mlp
    table = block.gate.tid2eid
    generator = torch.Generator().manual_seed(5)
    table.copy_(torch.randint(0, 8, table.shape, generator=generator))
    table[:, 1] = (table[:, 0] + 1 + table[:, 1] % 7) % 8  # choices of a token differ
    model.model.to(TORCH[dtype])
    model.save(tmp_path, save_original_format=original)
    layer = compiled.compile(tmp_path, layer=0).layer(tmp_path)
    x = torch.randn((33, hf.H), generator=generator).to(TORCH[dtype])
    ids = torch.randint(0, len(table), (33,), generator=generator)
    ids[-1] = len(table) - 1
    with torch.no_grad():
        theirs = block(x[None], ids[None])[0]
    ours = layer(numpy_of(x), ids.numpy())
    error = relative_error(ours, theirs)
    record(f"hash layer {dtype}", error)
    assert error < TOLERANCE[dtype]
    if dtype == "f32" and original:
        # Tokens that the vocabulary lacks have no routed expert, and harm no others.
        wrong = ids.clone()
        wrong[:3] = torch.tensor([-1, len(table), 2**40])
        with torch.no_grad():
            shared = block.shared_experts(x[:3])
        ours = layer(numpy_of(x), wrong.numpy())
        assert relative_error(ours[3:], theirs[3:]) < TOLERANCE[dtype]
        assert relative_error(ours[:3], shared) < TOLERANCE[dtype]


def test_tables_of_hash_layers_that_do_not_fit(compiled, tmp_path):
    MODELS["deepseek_v4"]().save(tmp_path)
    name = "model.layers.0.ffn.gate.tid2eid"

    def put(table):
        replace_tensors(tmp_path, lambda tensors: tensors.update({name: table}))
        return compiled.compile(tmp_path, layer=0).layer(tmp_path)

    config = MODELS["deepseek_v4"]().model.config
    vocabulary, k = config.vocab_size, config.num_experts_per_tok
    x, ids = np.ones((2, hf.H), np.float32), np.array([0, 1])
    # An id that is no expert, also none of its lower 32 bits, is no choice.
    table = torch.zeros((vocabulary, k), dtype=torch.long)
    table[1] = torch.tensor([2**32 + 1, -7, 8])
    y = put(table)(x, ids)
    assert np.isfinite(y).all() and not np.array_equal(y[0], y[1])
    assert np.array_equal(put(table.int().clamp(0, 0))(x, ids)[0], y[0])  # and in i32
    replace_tensors(tmp_path, lambda tensors: tensors.update({name: table[:5].clone()}))
    assert re.search(rf"expected tensor '{name}' to be i64 or i32\[{vocabulary}, {k}\], got "
                     rf"i64\[5, {k}\]", refused(compiled, tmp_path, "--layer=0"))
    replace_tensors(tmp_path, lambda tensors: tensors.update({name: table.float()}))
    assert "got f32" in refused(compiled, tmp_path, "--layer=0")
    replace_tensors(tmp_path, lambda tensors: tensors.pop(name))
    assert f"no tensor '{name}'" in refused(compiled, tmp_path, "--layer=0")


# --------------------------------------------------------------------------
# Models with a language model inside
# --------------------------------------------------------------------------


@pytest.mark.parametrize("family", list(WRAPPERS))
def test_wrappers(compiled, tmp_path, family):
    model = WRAPPERS[family]()
    model.save(tmp_path)
    check(compiled, tmp_path, model, "f32")
    model.save(tmp_path, save_original_format=False)
    assert "model.language_model.layers.1.mlp.experts.gate_up_proj" in ir_of(
        compiled, tmp_path, 1)


@pytest.mark.parametrize("family, text, section, prefix", [
    ("aria", "aria_text", "text_config", "language_model.model."),
    ("deepseek_ocr2", "deepseek_ocr2_text", "text_config", "model."),
    ("unlimited_ocr", "unlimited_ocr_text", "language_config", "model."),
    ("dots3_note", "dots3_note_text", "", "model."),
    ("glm5_next", "glm5_next_text", "", "model.language_model."),
    ("glm5_next", "glm5_next_text", "text_config", "model.language_model."),
    ("hy_v4_vl", "hy_v4_vl_text", "text_config", "model."),
    ("inkling2", "inkling2_text", "text_config", "model.llm."),
    ("inkling2_loop", "inkling2_loop_text", "text_config", "model.llm."),
    ("qwen3_5_moe", "qwen3_5_moe_text", "text_config", "model.language_model."),
    ("qwen3_vl_moe", "qwen3_vl_moe_text", "text_config", "model.language_model."),
    ("qwen3_omni_moe_thinker", "qwen3_omni_moe_text", "text_config", "thinker.model."),
    ("qwen4_exp", "qwen4_exp_text", "text_config", "model.language_model."),
    ("unknown", "lfm2_moe", "text_config", "model.language_model."),
])
def test_nested_configurations(compiled, tmp_path, family, text, section, prefix):
    """The layer of the language model, where its keys and tensors are in the whole one."""
    MODELS[text]().save(tmp_path)
    expected = ir_of(compiled, tmp_path, 1)
    nest(tmp_path, family, section, prefix)
    ir = ir_of(compiled, tmp_path, 1)
    assert f'"{prefix}layers.1.' in ir
    assert without_prefixes(ir) == without_prefixes(expected)


def nest(directory: Path, family: str, section: str, prefix: str) -> None:
    path = directory / "config.json"
    config = json.loads(path.read_text())
    config = {section: config} if section else config
    path.write_text(json.dumps(config | {"model_type": family}))

    def rename(tensors):
        renamed = {re.sub(r"^.*?(?=layers\.)", prefix, n): t for n, t in tensors.items()}
        tensors.clear()
        tensors.update(renamed)

    replace_tensors(directory, rename)


def test_table_of_families(compiled, tmp_path):
    """docs/families.md names every folder of transformers that has experts, and those that
    --hf imports."""
    import transformers

    table = families.read()
    root = Path(transformers.__file__).parent / "models"
    with_experts = {path.parent.name for path in root.glob("*/modeling_*.py")
                    if re.search(r"^@use_experts_implementation", path.read_text(), re.MULTILINE)}
    others = {"dbrx", "doge", "jetmoe", "llama4", "longcat_flash", "nllb_moe", "step3p7",
              "switch_transformers"}
    assert set(table) == with_experts | others
    (tmp_path / "config.json").write_text('{"model_type": "none"}')
    known = set(refused(compiled, tmp_path).rsplit(": ", 1)[1].strip().split(", "))
    for folder, row in table.items():
        families.check(folder, hf=bool({folder, f"{folder}_text"} & known),
                       experts=folder in with_experts and folder != "muse_spark")
        assert row["--hf"] or row["traced"]
    text = families.PATH.read_text()
    assert f"\n{len(table)} of {len(table)} work through some door" in text
    for column in families.COLUMNS:
        assert f"- **{column}** ({sum(row[column] for row in table.values())}): " in text
