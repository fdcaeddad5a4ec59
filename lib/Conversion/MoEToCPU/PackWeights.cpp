//===- PackWeights.cpp - Pack weights for CPU kernels ---------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Conversion/MoEToCPU/MoEToCPU.h"
#include "moe/Dialect/MoE/Transforms/ABI/WeightPreparation.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Dialect/Utils/StaticValueUtils.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"
#include "mlir/IR/Remarks.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_MOEPACKWEIGHTS
#include "moe/Conversion/Passes.h.inc"
} // namespace mlir::moe

namespace {
/// What lies between weights of the function and an operand of a matmul: a
/// dequantization, if the weights are quantised, and slices.
struct WeightPath {
  SmallVector<BlockArgument> weights;
  DequantizeOp dequantize;
  SmallVector<tensor::ExtractSliceOp> slices; // first to last, of rank 3
};

/// Packs the weights of one function.
class Packer {
public:
  Packer(func::FuncOp function, const CPUDescription &cpu)
      : function(function), cpu(cpu), preparation(function) {}

  void run();
  int64_t getNumPrepared() const { return preparation.getNumAdded(); }
  int64_t numInCall = 0;

private:
  std::optional<WeightPath> pathOf(Value operand);
  Value packInCall(GroupedMatmulOp matmul, PanelsAttr panels);
  Value prepare(GroupedMatmulOp matmul, PanelsAttr panels,
                ArrayRef<WeightPath> paths);

  func::FuncOp function;
  CPUDescription cpu;
  WeightPreparation preparation;
  struct Prepared {
    SmallVector<Value> weights;
    PanelsAttr panels;
    bool transposed;
    Value packed;
  };
  SmallVector<Prepared> done;
};
} // namespace

static RankedTensorType packedType(PanelsAttr panels, int64_t experts,
                                   GroupedMatmulOp matmul) {
  Type element =
      cast<RankedTensorType>(matmul.getLhs().getType()).getElementType();
  return RankedTensorType::get(
      panels.getShape(experts, matmul.getK(), matmul.getN()), element);
}

std::optional<WeightPath> Packer::pathOf(Value operand) {
  WeightPath path;
  while (Operation *op = operand.getDefiningOp()) {
    path.dequantize = dyn_cast<DequantizeOp>(op);
    if (path.dequantize)
      break;
    auto slice = dyn_cast<tensor::ExtractSliceOp>(op);
    auto expand = dyn_cast<tensor::ExpandShapeOp>(op);
    if (expand && expand.getSrcType().getRank() == 2 &&
        expand.getType().getRank() == 3 &&
        expand.getType().getDimSize(0) == 1) {
      operand = expand.getSrc();
      continue;
    }
    if (!slice || slice.getType().getRank() != 3 ||
        slice.getSourceType().getRank() != 3 ||
        slice.getType().getDimSize(0) != slice.getSourceType().getDimSize(0) ||
        ShapedType::isDynamicShape(slice.getStaticOffsets()) ||
        ShapedType::isDynamicShape(slice.getStaticStrides()))
      return std::nullopt;
    path.slices.insert(path.slices.begin(), slice);
    operand = slice.getSource();
  }
  SmallVector<Value> weights{operand};
  if (path.dequantize)
    weights = llvm::to_vector(path.dequantize.getFields());
  for (Value weight : weights) {
    if (!preparation.weightOf(weight))
      return std::nullopt;
    path.weights.push_back(cast<BlockArgument>(weight));
  }
  return path;
}

/// Packs weights that are computed by the function, in every call.
Value Packer::packInCall(GroupedMatmulOp matmul, PanelsAttr panels) {
  ImplicitLocOpBuilder b(matmul.getLoc(), matmul);
  RankedTensorType type = packedType(panels, matmul.getExpertCount(), matmul);
  Value init =
      tensor::EmptyOp::create(b, type.getShape(), type.getElementType());
  ++numInCall;
  remark::missed(matmul.getLoc(),
                 remark::RemarkOpts::name("WeightsNotPrepacked")
                     .category("moe-pack-weights")
                     .function(function.getName()))
      << "packed in every call: the function computes these weights";
  return PackOp::create(b, type, matmul.getWeights(), init,
                        matmul.getTransposed(), panels)
      .getResult();
}

/// True if the matrices have a dimension of experts.
static bool hasExperts(const WeightPath &path) {
  Value matrices = path.weights.front();
  if (DequantizeOp dequantize = path.dequantize)
    matrices = dequantize.getResult();
  return cast<RankedTensorType>(matrices.getType()).getRank() == 3;
}

Value Packer::prepare(GroupedMatmulOp matmul, PanelsAttr panels,
                      ArrayRef<WeightPath> paths) {
  SmallVector<WeightPreparation::Source> sources;
  auto indexOf = [&](BlockArgument weight) -> size_t {
    return llvm::find_if(
               sources,
               [&](const auto &source) { return source.weight == weight; }) -
           sources.begin();
  };
  for (const WeightPath &path : paths)
    for (BlockArgument weight : path.weights)
      if (indexOf(weight) == sources.size())
        sources.push_back({weight, hasExperts(path)});

  auto build = [&](ImplicitLocOpBuilder &b, ValueRange arguments) -> Value {
    SmallVector<Value> weights;
    llvm::DenseMap<Operation *, Value> dequantized;
    for (const WeightPath &path : paths) {
      SmallVector<Value> fields =
          llvm::map_to_vector(path.weights, [&](BlockArgument each) {
            return arguments[indexOf(each)];
          });
      Value weight = fields.front();
      if (DequantizeOp op = path.dequantize) {
        Value &known = dequantized[op];
        if (!known)
          known = DequantizeOp::create(b,
                                       WeightPreparation::withDynamicExperts(
                                           op.getType(), hasExperts(path)),
                                       fields, op.getFormat());
        weight = known;
      }
      for (tensor::ExtractSliceOp slice : path.slices) {
        SmallVector<OpFoldResult> sizes = slice.getMixedSizes();
        sizes[0] = tensor::getMixedSize(b, b.getLoc(), weight, 0);
        weight = tensor::ExtractSliceOp::create(
            b, weight, slice.getMixedOffsets(), sizes, slice.getMixedStrides());
      }
      weights.push_back(weight);
    }
    RankedTensorType packed = packedType(panels, ShapedType::kDynamic, matmul);
    SmallVector<OpFoldResult> sizes =
        getAsIndexOpFoldResult(b.getContext(), packed.getShape());
    sizes[0] = tensor::getMixedSize(b, b.getLoc(), weights[0], 0);
    Value init = tensor::EmptyOp::create(b, sizes, packed.getElementType());
    return PackOp::create(b, packed, weights, init, matmul.getTransposed(),
                          panels)
        .getResult();
  };
  return preparation.add(matmul.getLoc(), "packed",
                         packedType(panels, matmul.getExpertCount(), matmul),
                         sources, build);
}

void Packer::run() {
  SmallVector<GroupedMatmulOp> matmuls;
  function.walk([&](GroupedMatmulOp op) {
    if (!op.getPanels() && !op.isQuantized() && op.getResult())
      matmuls.push_back(op);
  });
  for (GroupedMatmulOp matmul : matmuls) {
    Type element =
        cast<RankedTensorType>(matmul.getLhs().getType()).getElementType();
    PanelsAttr panels =
        choosePanels(cpu, element, matmul.getNumAccumulators(), matmul.getN());
    SmallVector<Value> weights(matmul.getWeights());
    Value packed;
    for (const Prepared &known : done)
      if (known.weights == weights && known.panels == panels &&
          known.transposed == matmul.getTransposed())
        packed = known.packed;
    if (!packed) {
      SmallVector<WeightPath> paths;
      for (Value weight : weights)
        if (std::optional<WeightPath> path = pathOf(weight))
          paths.push_back(*path);
      packed = paths.size() == weights.size() ? prepare(matmul, panels, paths)
                                              : packInCall(matmul, panels);
      if (isa<BlockArgument>(packed))
        done.push_back({weights, panels, matmul.getTransposed(), packed});
    }
    matmul.getWeightsMutable().assign(packed);
    matmul.setTransposed(false);
    matmul.setPanelsAttr(panels);
    // Erase the slices of the weights if they are dead now.
    while (!weights.empty()) {
      Operation *op = weights.pop_back_val().getDefiningOp();
      if (!op || !isOpTriviallyDead(op))
        continue;
      llvm::append_range(weights, op->getOperands());
      for (Prepared &known : done) // do not compare with erased values
        if (llvm::is_contained(known.weights, op->getResult(0)))
          known.weights.clear();
      op->erase();
    }
  }
  preparation.finish();
}

namespace {
struct MoEPackWeights : moe::impl::MoEPackWeightsBase<MoEPackWeights> {
  using MoEPackWeightsBase::MoEPackWeightsBase;

  void runOnOperation() override {
    CPUDescription cpu{vectorBits, vectorRegisters, bf16Dot};
    if (failed(cpu.verify(getOperation())))
      return signalPassFailure();
    SmallVector<func::FuncOp> functions(getOperation().getOps<func::FuncOp>());
    for (func::FuncOp function : functions) {
      if (function.isExternal())
        continue;
      Packer packer(function, cpu);
      packer.run();
      numPrepared += packer.getNumPrepared();
      numInCall += packer.numInCall;
    }
  }
};
} // namespace
