//===- FamilyExamples.h - A small configuration of every family -*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_TEST_UNIT_IMPORT_FAMILYEXAMPLES_H
#define MOE_TEST_UNIT_IMPORT_FAMILYEXAMPLES_H

#include "llvm/ADT/STLFunctionalExtras.h"
#include "llvm/Support/JSON.h"

#include "gtest/gtest.h"

#include <vector>

namespace mlir::moe {

/// A small configuration, the families that read it, and a layer of it that has
/// experts.
struct Example {
  std::vector<llvm::StringRef> modelTypes;
  int64_t layer;
  const char *config;
};

inline const Example examples[] = {
    {{"dbrx"},
     1,
     R"({"d_model": 8, "n_layers": 2, "ffn_config": {"moe_num_experts": 4,
         "moe_top_k": 2, "ffn_hidden_size": 6, "ffn_act_fn": {"name": "silu"},
         "moe_normalize_expert_weights": 1}})"},
    {{"deepseek_v2"},
     1,
     R"({"hidden_size": 8, "num_hidden_layers": 2, "moe_intermediate_size": 6,
         "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 2,
         "first_k_dense_replace": 1, "moe_layer_freq": 1, "topk_group": 1,
         "topk_method": "group_limited_greedy", "n_shared_experts": 2,
         "routed_scaling_factor": 16.0, "scoring_func": "softmax",
         "norm_topk_prob": false, "hidden_act": "silu", "mlp_bias": true})"},
    {{"deepseek_ocr2_text", "unlimited_ocr_text"},
     1,
     R"({"hidden_size": 8, "num_hidden_layers": 2, "moe_intermediate_size": 6,
         "n_routed_experts": 4, "num_experts_per_tok": 2,
         "mlp_layer_types": ["dense", "sparse"], "n_shared_experts": 2})"},
    {{"deepseek_ocr2", "unlimited_ocr"},
     1,
     R"({"text_config": {"hidden_size": 8, "num_hidden_layers": 2,
         "moe_intermediate_size": 6, "n_routed_experts": 4,
         "num_experts_per_tok": 2, "n_shared_experts": null}})"},
    {{"deepseek_v3", "kimi_k2", "axk1", "axk2", "deepseek_v32", "mistral4",
      "mistral_large4_text", "solar_open", "dots1"},
     1,
     R"({"hidden_size": 8, "num_hidden_layers": 2, "moe_intermediate_size": 6,
         "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 2,
         "first_k_dense_replace": 1, "topk_group": 1, "n_shared_experts": 1,
         "routed_scaling_factor": 2.5, "norm_topk_prob": true})"},
    {{"glm4_moe", "glm4_moe_lite", "glm4v_moe_text"},
     1,
     R"({"hidden_size": 8, "num_hidden_layers": 2, "moe_intermediate_size": 6,
         "n_routed_experts": 4, "num_experts_per_tok": 2,
         "scoring_func": "sigmoid", "topk_method": "noaux_tc",
         "n_shared_experts": 1})"},
    {{"glm5_next_text", "hy_v4", "hy_v4_vl_text"},
     3,
     R"({"hidden_size": 8, "num_hidden_layers": 4, "moe_intermediate_size": 6,
         "n_routed_experts": 4, "num_experts_per_tok": 2,
         "swiglu_limit": 7.0, "n_shared_experts": 1})"},
    {{"glm4v_moe", "glm5_next", "hy_v4_vl", "dots3_note", "mistral_large4"},
     3,
     R"({"text_config": {"hidden_size": 8, "num_hidden_layers": 4,
         "moe_intermediate_size": 6, "n_routed_experts": 4,
         "num_experts_per_tok": 2, "n_shared_experts": 1,
         "moe_shared_expert_intermediate_size": 5}})"},
    {{"dots3_note_text", "glm_moe_dsa", "mimo_v2_flash"},
     3,
     R"({"hidden_size": 8, "num_hidden_layers": 4, "moe_intermediate_size": 6,
         "n_routed_experts": 4, "num_experts_per_tok": 2,
         "moe_layer_freq": [0, 1, 0, 1], "n_shared_experts": 1,
         "shared_experts_intermediate_size": 5})"},
    {{"bailing_hybrid", "kimi_linear"},
     2,
     R"({"hidden_size": 8, "num_hidden_layers": 3, "moe_intermediate_size": 6,
         "num_experts": 4, "num_experts_per_token": 2, "num_expert_group": 2,
         "topk_group": 1, "moe_renormalize": true, "num_shared_experts": 1,
         "mlp_layer_types": ["dense", "dense", "sparse"]})"},
    {{"beam", "exaone_moe"},
     3,
     R"({"hidden_size": 8, "num_hidden_layers": 4, "moe_intermediate_size": 6,
         "num_experts": 4, "num_experts_per_tok": 2, "n_group": 2,
         "topk_group": 1, "num_shared_experts": 2,
         "routed_scaling_factor": 2.5})"},
    {{"deepseek_v4"},
     3,
     R"({"hidden_size": 8, "num_hidden_layers": 4, "moe_intermediate_size": 6,
         "n_routed_experts": 4, "num_experts_per_tok": 2, "mlp_bias": true,
         "scoring_func": "sqrtsoftplus", "num_hash_layers": 2,
         "vocab_size": 16,
         "swiglu_limit": 10.0, "routed_scaling_factor": 1.5})"},
    {{"nemotron_h"},
     1,
     R"({"hidden_size": 8, "moe_intermediate_size": 6, "n_routed_experts": 4,
         "num_experts_per_tok": 2, "hybrid_override_pattern": "ME*-",
         "moe_shared_expert_intermediate_size": 5, "mlp_bias": true,
         "moe_latent_size": 4, "mlp_hidden_act": "relu2"})"},
    {{"gpt_oss", "openai_privacy_filter"},
     0,
     R"({"hidden_size": 8, "num_hidden_layers": 2, "intermediate_size": 6,
         "num_local_experts": 4, "num_experts_per_tok": 2,
         "swiglu_alpha": 1.5, "swiglu_limit": 7.0})"},
    {{"aria_text"},
     0,
     R"({"hidden_size": 8, "num_hidden_layers": 2, "intermediate_size": 6,
         "moe_num_experts": 4, "moe_topk": 2, "moe_num_shared_experts": 2,
         "mlp_bias": true})"},
    {{"aria"},
     0,
     R"({"text_config": {"hidden_size": 8, "num_hidden_layers": 2,
         "intermediate_size": 6, "moe_num_experts": 4, "moe_topk": 2,
         "moe_num_shared_experts": 0}})"},
    {{"granitemoe", "granitemoeshared", "granitemoe_swa", "granitemoehybrid"},
     0,
     R"({"hidden_size": 8, "num_hidden_layers": 2, "intermediate_size": 6,
         "num_local_experts": 4, "num_experts_per_tok": 2,
         "shared_intermediate_size": 5})"},
    {{"jetmoe"},
     0,
     R"({"hidden_size": 8, "num_hidden_layers": 2, "intermediate_size": 6,
         "num_local_experts": 4, "num_experts_per_tok": 2,
         "activation_function": "silu"})"},
    {{"cohere2_moe"},
     1,
     R"({"hidden_size": 8, "num_hidden_layers": 2, "intermediate_size": 6,
         "num_experts": 4, "num_experts_per_tok": 2, "num_shared_experts": 1,
         "expert_selection_fn": "sigmoid", "norm_topk_prob": true,
         "shared_expert_combination_strategy": "average",
         "first_k_dense_replace": 1})"},
    {{"jamba"},
     1,
     R"({"hidden_size": 8, "num_hidden_layers": 2, "intermediate_size": 6,
         "num_experts": 4, "num_experts_per_tok": 2, "expert_layer_period": 2,
         "expert_layer_offset": 1})"},
    {{"llama4"},
     1,
     R"({"text_config": {"hidden_size": 8, "num_hidden_layers": 2,
         "intermediate_size": 6, "num_local_experts": 4,
         "num_experts_per_tok": 1, "interleave_moe_layer_step": 2}})"},
    {{"llama4_text"},
     1,
     R"({"hidden_size": 8, "num_hidden_layers": 2, "intermediate_size": 6,
         "num_local_experts": 4, "num_experts_per_tok": 1,
         "moe_layers": [1]})"},
    {{"mixtral", "minimax", "minimax_m2"},
     0,
     R"({"hidden_size": 8, "num_hidden_layers": 2, "intermediate_size": 6,
         "num_local_experts": 4, "num_experts_per_tok": 2,
         "hidden_act": "silu", "torch_dtype": "bfloat16"})"},
    {{"minimax_m3_vl_text"},
     1,
     R"({"hidden_size": 8, "num_hidden_layers": 2, "intermediate_size": 6,
         "num_local_experts": 4, "num_experts_per_tok": 2,
         "moe_layer_freq": [0, 1], "shared_intermediate_size": 5,
         "routed_scaling_factor": 2.0})"},
    {{"minimax_m3_vl"},
     1,
     R"({"text_config": {"hidden_size": 8, "num_hidden_layers": 2,
         "intermediate_size": 6, "num_local_experts": 4,
         "num_experts_per_tok": 2, "shared_intermediate_size": 5}})"},
    {{"phimoe"},
     0,
     R"({"hidden_size": 8, "num_hidden_layers": 2, "intermediate_size": 6,
         "num_local_experts": 4, "num_experts_per_tok": 2,
         "router_jitter_noise": 0.01})"},
    {{"lfm2_moe"},
     2,
     R"({"hidden_size": 8, "num_hidden_layers": 3, "moe_intermediate_size": 6,
         "num_experts": 4, "num_experts_per_tok": 2, "use_expert_bias": true,
         "num_dense_layers": 2, "norm_topk_prob": true,
         "routed_scaling_factor": 1.0})"},
    {{"olmoe", "flex_olmo"},
     0,
     R"({"hidden_size": 8, "num_hidden_layers": 2, "intermediate_size": 6,
         "num_experts": 4, "num_experts_per_tok": 2,
         "norm_topk_prob": false})"},
    {{"qwen2_moe", "qwen3_next", "flint"},
     0,
     R"({"hidden_size": 8, "num_hidden_layers": 2, "moe_intermediate_size": 6,
         "num_experts": 4, "num_experts_per_tok": 2, "decoder_sparse_step": 1,
         "mlp_only_layers": [1], "shared_expert_intermediate_size": 5})"},
    {{"qwen3_moe", "qwen3_omni_moe_text", "qwen3_vl_moe_text", "mellum"},
     0,
     R"({"hidden_size": 8, "num_hidden_layers": 2, "moe_intermediate_size": 6,
         "num_experts": 4, "num_experts_per_tok": 2,
         "norm_topk_prob": true})"},
    {{"qwen3_5_moe_text", "qwen4_exp_text", "qwen3_omni_moe_talker_text",
      "lara_mini", "kolibri1"},
     0,
     R"({"hidden_size": 8, "num_hidden_layers": 2, "moe_intermediate_size": 6,
         "num_experts": 4, "num_experts_per_tok": 2,
         "shared_expert_intermediate_size": 5})"},
    {{"qwen3_5_moe", "qwen4_exp", "qwen3_vl_moe", "qwen3_omni_moe_thinker"},
     0,
     R"({"text_config": {"hidden_size": 8, "num_hidden_layers": 2,
         "moe_intermediate_size": 6, "num_experts": 4,
         "num_experts_per_tok": 2, "shared_expert_intermediate_size": 5}})"},
    {{"qwen3_omni_moe"},
     0,
     R"({"thinker_config": {"text_config": {"hidden_size": 8,
         "num_hidden_layers": 2, "moe_intermediate_size": 6, "num_experts": 4,
         "num_experts_per_tok": 2}}})"},
    {{"hunyuan_v1_moe"},
     1,
     R"({"hidden_size": 8, "num_hidden_layers": 2, "intermediate_size": 6,
         "num_experts": 4, "moe_topk": [1, 2]})"},
    {{"ernie4_5_moe"},
     1,
     R"({"hidden_size": 8, "num_hidden_layers": 2, "moe_intermediate_size": 6,
         "moe_num_experts": 4, "moe_k": 2, "moe_num_shared_experts": 2,
         "moe_norm_min": 1e-12, "use_bias": true, "moe_layer_start_index": 1,
         "moe_layer_end_index": -1, "moe_layer_interval": 1})"},
    {{"afmoe"},
     1,
     R"({"hidden_size": 8, "num_hidden_layers": 2, "moe_intermediate_size": 6,
         "num_experts": 4, "num_experts_per_tok": 2, "num_shared_experts": 2,
         "num_dense_layers": 1, "route_scale": 2.5})"},
    {{"hy_v3"},
     1,
     R"({"hidden_size": 8, "num_hidden_layers": 2, "moe_intermediate_size": 6,
         "num_experts": 4, "num_experts_per_tok": 2, "num_shared_experts": 1,
         "router_scaling_factor": 2.826, "mlp_bias": false})"},
    {{"laguna"},
     1,
     R"({"hidden_size": 8, "num_hidden_layers": 2, "moe_intermediate_size": 6,
         "num_experts": 4, "num_experts_per_tok": 2,
         "shared_expert_intermediate_size": 5,
         "moe_router_logit_softcapping": 30.0,
         "moe_routed_scaling_factor": 2.0})"},
    {{"inkling2_text", "inkling2_loop_text"},
     0,
     R"({"hidden_size": 8, "num_hidden_layers": 2, "moe_intermediate_size": 6,
         "n_routed_experts": 4, "num_experts_per_tok": 2, "route_scale": 8.0,
         "scoring_func": "sigmoid", "mlp_gate_softcap": 4.0,
         "mlp_up_softcap": 25.0})"},
    {{"inkling2", "inkling2_loop"},
     0,
     R"({"text_config": {"hidden_size": 8, "num_hidden_layers": 2,
         "moe_intermediate_size": 6, "n_routed_experts": 4,
         "num_experts_per_tok": 2}})"},
    {{"switch_transformers"},
     3,
     R"({"d_model": 8, "d_ff": 6, "num_layers": 2, "num_decoder_layers": 2,
         "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1,
         "num_experts": 4, "expert_capacity": 3, "router_bias": true,
         "dense_act_fn": "relu", "router_dtype": "float32"})"},
};

/// Calls `use` with each family, a layer with experts, and its configuration.
inline void forEachFamily(
    llvm::function_ref<void(llvm::StringRef, int64_t, llvm::json::Object)> use,
    bool onlyFirst = false) {
  for (const Example &example : examples)
    for (llvm::StringRef modelType : example.modelTypes) {
      SCOPED_TRACE(modelType.str());
      llvm::json::Value value =
          llvm::cantFail(llvm::json::parse(llvm::StringRef(example.config)));
      llvm::json::Object object = *value.getAsObject();
      object["model_type"] = modelType;
      use(modelType, example.layer, std::move(object));
      if (onlyFirst)
        break;
    }
}

inline llvm::json::Object configOf(llvm::StringRef family) {
  llvm::json::Object result;
  forEachFamily([&](llvm::StringRef name, int64_t, llvm::json::Object object) {
    if (name == family)
      result = std::move(object);
  });
  return result;
}

} // namespace mlir::moe

#endif // MOE_TEST_UNIT_IMPORT_FAMILYEXAMPLES_H
