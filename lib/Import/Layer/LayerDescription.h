//===- LayerDescription.h - A layer as families describe it -----*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// All differences between the layers of families. Families/ fills it in from a
// config.json; no other code depends on the family.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_IMPORT_LAYER_LAYERDESCRIPTION_H
#define MOE_LIB_IMPORT_LAYER_LAYERDESCRIPTION_H

#include "moe/Dialect/MoE/IR/MoE.h"

#include <optional>
#include <string>

namespace mlir::moe::importer {

//===----------------------------------------------------------------------===//
// Experts
//===----------------------------------------------------------------------===//

struct Activation {
  enum Kind {
    SiLU,
    GELU,     // with the error function
    GELUTanh, // its approximation
    QuickGELU,
    ReLU,
    ReLU2, // squared
    /// (clamp(up, ±limit) + offset) · g · σ(alpha · g) with
    /// g = min(gate, limit), including the multiplication by up.
    ClampedSwiGLU,
    /// cap(up, limitUp) · cap(gate, limit) · σ(gate) with
    /// cap(x, c) = c · tanh(x / c). Like the one above, it includes up.
    SoftCappedSwiGLU,
  };
  Kind kind = SiLU;
  double alpha = 1.0, limit = 0.0, limitUp = 0.0, offset = 0.0;
};

/// The layout of the gate of a gated activation.
enum class Gating {
  None,        // act(up)
  Separate,    // act(gate) · up, two matmuls
  Halves,      // one matmul: the columns of gate, then those of up
  Interleaved, // one matmul: even columns are gate, odd ones up
};

/// How a checkpoint stores one feed-forward network, or E of them. Names follow
/// a prefix (LayerDescription::prefixes). A name with "{e}", the index of an
/// expert, is that of one tensor for each expert.
struct MLPLayout {
  Gating gating = Gating::Separate;
  std::string gate; // with Gating::Separate
  std::string up;   // up, or gate and up in one tensor
  std::string down;
  std::string gateBias = {}, upBias = {}, downBias = {}; // may be empty
  /// [in, out] rather than [out, in], as nn.Linear has it.
  bool upInOut = false, downInOut = false;
  /// The matrices of the experts are concatenated along the rows of a 2-D
  /// tensor.
  bool flattened = false;
};

struct MLP {
  int64_t width = 0; // columns of gate and of up
  Activation activation;
  /// The layouts of different releases, that of published checkpoints first.
  SmallVector<MLPLayout, 2> layouts;
};

//===----------------------------------------------------------------------===//
// Router
//===----------------------------------------------------------------------===//

struct Router {
  SmallVector<std::string, 2> weight; // names in different releases
  std::string bias;                   // may be empty
  /// Added for the selection only; any floating-point type. Names in different
  /// releases; empty: there is none.
  SmallVector<std::string, 2> selectionBias;
  bool selectionBiasIsRow = false;      // stored as [1, experts]
  bool selectionBiasIsOptional = false; // a checkpoint may lack it

  /// The table of the experts of each token, [vocabulary, topK] of i64 or i32:
  /// the ids of the tokens choose, which are an input, and scores only weigh.
  /// Names in different releases; empty: the scores choose.
  SmallVector<std::string, 2> expertsOfTokens;
  int64_t vocabulary = 0;

  int64_t topK = 0;
  Score score = Score::Softmax;
  Order order = Order::ScoreThenSelect;
  std::optional<double> margin;

  struct Groups {
    int64_t count, keep;
    GroupScore score;
    GroupFill fill = GroupFill::NegInf;
  };
  std::optional<Groups> groups;

  struct Normalize {
    NormalizeKind kind = NormalizeKind::Sum;
    double p = 2.0, epsilon = 0.0;
    NormalizeGuard guard = NormalizeGuard::Add;
  };
  std::optional<Normalize> normalize;
  double scale = 1.0;
  double logitScale = 1.0;
  /// Logits become softCap · tanh(logit / softCap), in f32; 0: they stay.
  double softCap = 0.0;

  /// The logits stay in f32, and so does a weight in f32 of a layer of another
  /// type; otherwise both are rounded to the data type.
  bool f32Logits = false;
  /// Scores are rounded to the data type before the selection.
  bool roundScores = false;
  /// Only the resulting weights are rounded to the data type.
  bool roundWeights = false;
  /// The weight scales the input of the expert instead of its output.
  bool scaleInput = false;
};

//===----------------------------------------------------------------------===//
// Layer
//===----------------------------------------------------------------------===//

/// Linear layers around the experts, which then work on narrower rows. The
/// router and shared experts see the rows of the layer.
struct Latent {
  int64_t width = 0;                      // 0: there are none
  std::string down;                       // [width, hidden]
  std::string up;                         // [hidden, width]
  std::string downBias = {}, upBias = {}; // may be empty
};

/// x / √(mean(x²) + epsilon) · weight, in f32.
struct RMSNorm {
  SmallVector<std::string, 2> weight; // names; empty: there is no norm
  double epsilon = 0.0;
};

struct LayerDescription {
  int64_t hidden = 0, experts = 0;
  int64_t layers = 0;                   // of the model
  SmallVector<int64_t> moeLayers;       // those with experts, ascending
  SmallVector<std::string, 2> prefixes; // of all names, by likelihood
  /// Experts of another float type than the layer are converted to it.
  bool convertExperts = false;

  Router router;
  MLP expert;
  /// Rows that one expert takes; further choices are dropped.
  std::optional<int64_t> capacity;

  std::optional<MLP> shared;       // an expert for all tokens
  std::string sharedGate;          // [1, hidden], scales the shared expert
  bool sharedGateIsVector = false; // [hidden]

  Latent latent;
  std::string outputBias;   // added to each row of the result; may be empty
  double outputScale = 1.0; // of the sum of routed and shared experts
  RMSNorm outputNorm;       // of that sum

  /// Returns the columns of the rows that the experts take.
  int64_t expertHidden() const { return latent.width ? latent.width : hidden; }
};

} // namespace mlir::moe::importer

#endif // MOE_LIB_IMPORT_LAYER_LAYERDESCRIPTION_H
