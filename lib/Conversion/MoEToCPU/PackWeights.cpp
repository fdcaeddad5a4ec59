//===- PackWeights.cpp - Pack weights for CPU kernels ---------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Conversion/MoEToCPU/MoEToCPU.h"
#include "moe/Dialect/MoE/IR/MoEABI.h"

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
/// The slices between a weight of the function and an operand of a matmul.
struct WeightPath {
  BlockArgument weight;
  SmallVector<tensor::ExtractSliceOp> slices; // first to last, of rank 3
};

/// Packs the weights of one function.
class Packer {
public:
  Packer(func::FuncOp function, const CPUDescription &cpu)
      : function(function), cpu(cpu) {}

  void run();
  int64_t numPrepared = 0, numInCall = 0;

private:
  std::optional<WeightPath> pathOf(Value operand);
  ArgumentAttr argumentOf(BlockArgument weight);
  Value packInCall(GroupedMatmulOp matmul, PanelsAttr panels);
  Value prepare(GroupedMatmulOp matmul, PanelsAttr panels,
                ArrayRef<WeightPath> paths);
  func::FuncOp buildPreparation(GroupedMatmulOp matmul, PanelsAttr panels,
                                ArrayRef<WeightPath> paths,
                                ArrayRef<BlockArgument> sources,
                                StringRef result);
  void recordUses();

  func::FuncOp function;
  CPUDescription cpu;
  SmallVector<Attribute> arguments; // of the signature
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

/// Returns the argument of the signature if it is a weight; otherwise null.
ArgumentAttr Packer::argumentOf(BlockArgument weight) {
  if (weight.getArgNumber() >= arguments.size())
    return {};
  auto argument = cast<ArgumentAttr>(arguments[weight.getArgNumber()]);
  return argument.getRole() == ArgumentRole::Weight ? argument : ArgumentAttr();
}

std::optional<WeightPath> Packer::pathOf(Value operand) {
  WeightPath path;
  while (Operation *op = operand.getDefiningOp()) {
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
  path.weight = cast<BlockArgument>(operand);
  if (path.weight.getOwner() != &function.getBody().front() ||
      !argumentOf(path.weight))
    return std::nullopt;
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

/// Builds `@f__prepare<n>`, which packs the weights of any number of experts.
func::FuncOp Packer::buildPreparation(GroupedMatmulOp matmul, PanelsAttr panels,
                                      ArrayRef<WeightPath> paths,
                                      ArrayRef<BlockArgument> sources,
                                      StringRef result) {
  ImplicitLocOpBuilder b(matmul.getLoc(), function.getContext());
  auto dynamicExperts = [](RankedTensorType type) {
    SmallVector<int64_t> shape(type.getShape());
    if (shape.size() == 2)
      shape.insert(shape.begin(), 1);
    shape[0] = ShapedType::kDynamic;
    return RankedTensorType::get(shape, type.getElementType());
  };
  SmallVector<Type> types;
  for (BlockArgument source : sources)
    types.push_back(dynamicExperts(cast<RankedTensorType>(source.getType())));
  RankedTensorType packed = packedType(panels, ShapedType::kDynamic, matmul);
  b.setInsertionPointAfter(function);
  auto module = function->getParentOfType<ModuleOp>();
  std::string name =
      (function.getName() + "__prepare" + Twine(numPrepared)).str();
  while (module.lookupSymbol(name))
    name += '_';
  auto preparation =
      func::FuncOp::create(b, name, b.getFunctionType(types, packed));
  preparation->setAttr(preparesAttrName,
                       FlatSymbolRefAttr::get(function.getSymNameAttr()));
  preparation->setAttr(tokensAttrName,
                       b.getI64ArrayAttr({0, matmul.getExpertCount()}));
  preparation.setResultAttr(0, "moe.name", b.getStringAttr(result));
  for (auto [index, source] : llvm::enumerate(sources))
    preparation.setArgAttr(index, "moe.name", argumentOf(source).getName());

  b.setInsertionPointToStart(preparation.addEntryBlock());
  SmallVector<Value> weights;
  for (const WeightPath &path : paths) {
    unsigned source = llvm::find(sources, path.weight) - sources.begin();
    Value weight = preparation.getArgument(source);
    for (tensor::ExtractSliceOp slice : path.slices) {
      SmallVector<OpFoldResult> sizes = slice.getMixedSizes();
      sizes[0] = tensor::getMixedSize(b, b.getLoc(), weight, 0);
      weight = tensor::ExtractSliceOp::create(
          b, weight, slice.getMixedOffsets(), sizes, slice.getMixedStrides());
    }
    weights.push_back(weight);
  }
  SmallVector<OpFoldResult> sizes =
      getAsIndexOpFoldResult(b.getContext(), packed.getShape());
  sizes[0] = tensor::getMixedSize(b, b.getLoc(), weights[0], 0);
  Value init = tensor::EmptyOp::create(b, sizes, packed.getElementType());
  auto pack =
      PackOp::create(b, packed, weights, init, matmul.getTransposed(), panels);
  func::ReturnOp::create(b, pack.getResult());
  return preparation;
}

Value Packer::prepare(GroupedMatmulOp matmul, PanelsAttr panels,
                      ArrayRef<WeightPath> paths) {
  SmallVector<BlockArgument> sources;
  for (const WeightPath &path : paths)
    if (!llvm::is_contained(sources, path.weight))
      sources.push_back(path.weight);
  Builder b(function.getContext());
  SmallVector<Attribute> names =
      llvm::map_to_vector(sources, [&](BlockArgument source) -> Attribute {
        return argumentOf(source).getName();
      });
  std::string name = "packed" + std::to_string(numPrepared);
  for (bool taken = true; taken; name += taken ? "_" : "")
    taken = llvm::any_of(arguments, [&](Attribute argument) {
      return cast<ArgumentAttr>(argument).getName() == name;
    });
  func::FuncOp preparation =
      buildPreparation(matmul, panels, paths, sources, name);
  RankedTensorType type = packedType(panels, matmul.getExpertCount(), matmul);
  arguments.push_back(ArgumentAttr::get(
      b.getContext(), b.getStringAttr(name), ArgumentRole::Prepared, type,
      /*numExperts=*/0, /*source=*/{}, /*convert=*/false, /*retained=*/true,
      /*alignment=*/0, b.getStringAttr(preparation.getName()),
      b.getArrayAttr(names)));
  unsigned index = function.getNumArguments();
  (void)function.insertArgument(index, type, {}, function.getLoc());
  function.setArgAttr(index, "bufferization.writable", b.getBoolAttr(false));
  ++numPrepared;
  return function.getArgument(index);
}

/// Marks weights that a call no longer reads as not retained.
void Packer::recordUses() {
  for (auto [index, argument] : llvm::enumerate(arguments))
    if (ArgumentAttr weight = argumentOf(function.getArgument(index));
        weight && function.getArgument(index).use_empty())
      argument = weight.withRetained(false);
  setSignature(function, getSignature(function).withArguments(arguments));
}

void Packer::run() {
  if (SignatureAttr signature = getSignature(function);
      signature && signature.getArguments())
    llvm::append_range(arguments, signature.getArguments());
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
  if (isExported(function))
    recordUses();
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
      numPrepared += packer.numPrepared;
      numInCall += packer.numInCall;
    }
  }
};
} // namespace
