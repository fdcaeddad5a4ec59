//===- QuantizeWeights.cpp - Quantise the weights of matmuls --------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Dialect/MoE/IR/MoEABI.h"
#include "moe/Dialect/MoE/Transforms/ABI/Passes.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"
#include "mlir/IR/Remarks.h"
#include "llvm/ADT/SetVector.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_MOEQUANTIZEWEIGHTS
#include "moe/Dialect/MoE/Transforms/ABI/Passes.h.inc"
} // namespace mlir::moe

namespace {
/// What reads a weight, or an equal part of each of its matrices.
struct Readers {
  /// Matmuls, slices and parameters of experts.
  SmallVector<OpOperand *> uses;
  SmallVector<tensor::DimOp> extents;
  /// Whether matmuls sum along the last dimension; unknown without one.
  std::optional<bool> transposed;
  /// Why the weight is not quantised; empty if it is.
  std::string refusal;

  void visit(Value weight);

private:
  void refuse(const Twine &reason) {
    if (refusal.empty())
      refusal = reason.str();
  }
  void addMatmul(OpOperand &use, bool transposed);
};
} // namespace

/// True if `result` reaches the logits of a gate through elementwise
/// operations, slices and casts.
static bool reachesGate(Value result) {
  llvm::SetVector<Value> values;
  values.insert(result);
  for (size_t i = 0; i < values.size(); ++i)
    for (OpOperand &use : values[i].getUses()) {
      Operation *user = use.getOwner();
      if (isa<GateOp>(user))
        return true;
      auto structured = dyn_cast<linalg::LinalgOp>(user);
      bool continues = structured ? structured.getNumReductionLoops() == 0
                                  : (user->getDialect() &&
                                     !isa<MoEDialect>(user->getDialect()) &&
                                     user->getNumRegions() == 0);
      if (continues)
        values.insert(user->result_begin(), user->result_end());
    }
  return false;
}

/// Returns true if a matmul sums along the last dimension of its right operand
/// and false if it sums along the one before; none if `use` is another operand
/// or the operation has another form.
static std::optional<bool> sumsAlongLast(linalg::LinalgOp op, OpOperand &use) {
  if (!isa<linalg::MatmulOp, linalg::GenericOp>(op.getOperation()) ||
      !linalg::isaContractionOpInterface(op) || op.getNumLoops() != 3 ||
      !op.hasPureTensorSemantics() || use.getOperandNumber() != 1)
    return std::nullopt;
  AffineMap map = op.getMatchingIndexingMap(&use);
  auto iterators = op.getIteratorTypesArray();
  if (map.getNumResults() != 2)
    return std::nullopt;
  auto isSum = [&](unsigned result) {
    auto dim = dyn_cast<AffineDimExpr>(map.getResult(result));
    return dim &&
           iterators[dim.getPosition()] == utils::IteratorType::reduction;
  };
  if (isSum(0) == isSum(1))
    return std::nullopt;
  return isSum(1);
}

void Readers::addMatmul(OpOperand &use, bool isTransposed) {
  if (transposed && *transposed != isTransposed)
    refuse("matmuls sum along different dimensions of it");
  transposed = isTransposed;
  uses.push_back(&use);
}

void Readers::visit(Value weight) {
  for (OpOperand &use : weight.getUses()) {
    Operation *user = use.getOwner();
    if (auto dim = dyn_cast<tensor::DimOp>(user)) {
      if (!dim.getConstantIndex())
        refuse("'tensor.dim' of any dimension reads it");
      extents.push_back(dim);
      continue;
    }
    if (auto expert = dyn_cast<ExpertOp>(user);
        expert && llvm::is_contained(expert.getParams(), weight)) {
      unsigned index =
          use.getOperandNumber() - expert.getParams().getBeginOperandIndex();
      uses.push_back(&use);
      visit(expert.getBody().front().getArgument(1 + index));
      continue;
    }
    if (auto matmul = dyn_cast<GroupedMatmulOp>(user);
        matmul && !matmul.isQuantized() && !matmul.getPanels() &&
        llvm::is_contained(matmul.getWeights(), weight) &&
        weight != matmul.getLhs()) {
      // All weights of a matmul have one layout.
      if (!matmul.getTransposed() && matmul.getWeights().size() > 1)
        refuse("a matmul of several weights that are not transposed reads it");
      addMatmul(use, matmul.getTransposed());
      continue;
    }
    if (auto slice = dyn_cast<tensor::ExtractSliceOp>(user);
        slice && slice.getType().getRank() == slice.getSourceType().getRank() &&
        slice.getType().hasStaticShape()) {
      uses.push_back(&use);
      visit(slice.getResult());
      continue;
    }
    auto structured = dyn_cast<linalg::LinalgOp>(user);
    std::optional<bool> isTransposed =
        structured ? sumsAlongLast(structured, use) : std::nullopt;
    if (!isTransposed) {
      refuse("'" + user->getName().getStringRef() + "' reads it");
      continue;
    }
    if (reachesGate(user->getResult(0)))
      refuse("it is the weight of a router");
    addMatmul(use, *isTransposed);
  }
}

template <typename T> static void swapLast(SmallVectorImpl<T> &values) {
  std::swap(values[values.size() - 1], values[values.size() - 2]);
}

/// Returns `type` with the last two dimensions exchanged.
static RankedTensorType transposeMatrices(RankedTensorType type) {
  SmallVector<int64_t> shape(type.getShape());
  swapLast(shape);
  return type.clone(shape);
}

/// Changes the reader of a weight whose last two dimensions are exchanged.
static void transposeReader(OpOperand &use) {
  Operation *user = use.getOwner();
  if (auto expert = dyn_cast<ExpertOp>(user)) {
    unsigned index =
        use.getOperandNumber() - expert.getParams().getBeginOperandIndex();
    BlockArgument argument = expert.getBody().front().getArgument(1 + index);
    argument.setType(
        transposeMatrices(cast<RankedTensorType>(argument.getType())));
    return;
  }
  if (auto matmul = dyn_cast<GroupedMatmulOp>(user))
    return matmul.setTransposed(true);
  if (auto slice = dyn_cast<tensor::ExtractSliceOp>(user)) {
    OpBuilder b(slice);
    SmallVector<OpFoldResult> offsets = slice.getMixedOffsets();
    SmallVector<OpFoldResult> sizes = slice.getMixedSizes();
    SmallVector<OpFoldResult> strides = slice.getMixedStrides();
    swapLast(offsets);
    swapLast(sizes);
    swapLast(strides);
    Value transposed = tensor::ExtractSliceOp::create(
        b, slice.getLoc(), slice.getSource(), offsets, sizes, strides);
    slice.getResult().replaceAllUsesWith(transposed);
    return slice.erase();
  }
  auto matmul = cast<linalg::LinalgOp>(user);
  SmallVector<AffineMap> maps = matmul.getIndexingMapsArray();
  AffineMap &map = maps[use.getOperandNumber()];
  map = AffineMap::get(map.getNumDims(), 0,
                       {map.getResult(1), map.getResult(0)}, map.getContext());
  Builder b(user->getContext());
  user->setAttr("indexing_maps", b.getAffineMapArrayAttr(maps));
}

/// Cuts the blocks of a format to matrices [n, k].
static FormatAttr cutBlocks(FormatAttr format, int64_t n, int64_t k) {
  SmallVector<Attribute> scales;
  for (auto scale : format.getScales().getAsRange<FieldAttr>())
    scales.push_back(FieldAttr::get(
        format.getContext(), scale.getElement(), scale.getOperand(),
        {std::min(scale.getBlockRows(), n),
         std::min(scale.getBlockColumns(), k)},
        scale.getBits(), scale.getAxis(), scale.getDivide()));
  return FormatAttr::get(format.getContext(), format.getCodes(),
                         format.getRecord(), format.getOffset(),
                         format.getTable(),
                         ArrayAttr::get(format.getContext(), scales),
                         format.getMins(), format.getZero());
}

/// Replaces a weight by its rounded value.
static void quantize(BlockArgument weight, const Readers &readers,
                     FormatAttr format) {
  bool transposed = !*readers.transposed;
  auto type = cast<RankedTensorType>(weight.getType());
  if (transposed)
    type = transposeMatrices(type);
  // Extents are those of the weight as it is.
  for (tensor::DimOp dim : readers.extents) {
    OpBuilder builder(dim);
    auto source = cast<RankedTensorType>(dim.getSource().getType());
    dim.replaceAllUsesWith(
        arith::ConstantIndexOp::create(
            builder, dim.getLoc(), source.getDimSize(*dim.getConstantIndex()))
            .getResult());
    dim.erase();
  }
  ArrayRef<int64_t> matrix = type.getShape().take_back(2);
  // After the arguments, before any reader.
  auto b =
      ImplicitLocOpBuilder::atBlockBegin(weight.getLoc(), weight.getOwner());
  auto quantized = QuantizeOp::create(b, weight, transposed,
                                      cutBlocks(format, matrix[0], matrix[1]));
  Value rounded = DequantizeOp::create(b, type, quantized.getFields(),
                                       quantized.getFormat());
  weight.replaceAllUsesExcept(rounded, quantized);
  if (!transposed)
    return;
  // A slice is replaced by another one: readers of it come first.
  for (OpOperand *use : llvm::reverse(readers.uses))
    transposeReader(*use);
}

namespace {
struct MoEQuantizeWeights
    : moe::impl::MoEQuantizeWeightsBase<MoEQuantizeWeights> {
  using MoEQuantizeWeightsBase::MoEQuantizeWeightsBase;

  void runOnOperation() override {
    for (auto function : getOperation().getOps<func::FuncOp>()) {
      Attribute attribute = function->removeAttr(weightFormatAttrName);
      if (!attribute || function.isExternal())
        continue;
      auto format = dyn_cast<FormatAttr>(attribute);
      const char *reason = format ? QuantizeOp::reasonNotToQuantize(format)
                                  : "expected a format";
      if (reason) {
        function.emitError() << weightFormatAttrName << ": " << reason;
        return signalPassFailure();
      }
      for (BlockArgument argument : function.getArguments())
        run(function, argument, format);
    }
  }

  void run(func::FuncOp function, BlockArgument argument, FormatAttr format) {
    unsigned index = argument.getArgNumber();
    auto role = function.getArgAttrOfType<StringAttr>(index, "moe.role");
    auto type = dyn_cast<RankedTensorType>(argument.getType());
    if (!role || role.getValue() != "weight" || !type ||
        !type.hasStaticShape() || type.getRank() < 2 || type.getRank() > 3 ||
        type.getNumElements() == 0 ||
        !isa<Float32Type, Float16Type, BFloat16Type>(type.getElementType()))
      return;
    Readers readers;
    readers.visit(argument);
    if (readers.refusal.empty() && !readers.transposed)
      return; // nothing multiplies it
    if (readers.refusal.empty() &&
        type.getShape().take_back(2)[!*readers.transposed] == 1)
      readers.refusal = "it has one row";
    if (!readers.refusal.empty()) {
      auto name = function.getArgAttrOfType<StringAttr>(index, "moe.name");
      remark::missed(function.getLoc(),
                     remark::RemarkOpts::name("WeightNotQuantized")
                         .category("moe-quantize-weights")
                         .function(function.getName()))
          << ("weight '" + (name ? name.getValue() : StringRef()) +
              "' is not quantised: " + readers.refusal)
                 .str();
      return;
    }
    quantize(argument, readers, format);
    ++numQuantized;
  }
};
} // namespace
