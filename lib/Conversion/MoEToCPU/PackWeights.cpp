//===- PackWeights.cpp - Pack weights for CPU kernels ---------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Quantized/QuantizedKernel.h"
#include "moe/Conversion/MoEToCPU/MoEToCPU.h"
#include "moe/Dialect/MoE/Transforms/ABI/WeightExpression.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Dialect/Utils/StaticValueUtils.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"
#include "mlir/IR/Remarks.h"
#include "llvm/ADT/SetVector.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_MOEPACKWEIGHTS
#include "moe/Conversion/Passes.h.inc"
} // namespace mlir::moe

namespace {
/// What lies between weights of the function and an operand of a matmul: a
/// dequantization, if the weights are quantised, and slices; or other views.
struct WeightPath {
  SmallVector<WeightPreparation::Source> sources;
  DequantizeOp dequantize;
  SmallVector<tensor::ExtractSliceOp> slices; // first to last, of rank 3
  std::optional<WeightExpression> expression; // instead of both
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
  std::optional<WeightPath> pathOfSlices(Value operand);
  Value packInCall(GroupedMatmulOp matmul, PanelsAttr panels);
  PanelsAttr panelsOf(GroupedMatmulOp matmul, ArrayRef<WeightPath> paths);
  Value prepare(GroupedMatmulOp matmul, PanelsAttr panels,
                ArrayRef<WeightPath> paths);
  void eraseDead(ValueRange weights);

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
  if (panels.getFormat())
    element = IntegerType::get(matmul.getContext(), 8);
  return RankedTensorType::get(
      panels.getShape(experts, matmul.getK(), matmul.getN()), element);
}

std::optional<WeightPath> Packer::pathOf(Value operand) {
  if (std::optional<WeightPath> path = pathOfSlices(operand))
    return path;
  WeightPath path;
  path.expression = WeightExpression::match(preparation, operand);
  if (!path.expression)
    return std::nullopt;
  llvm::append_range(path.sources, path.expression->getSources());
  return path;
}

std::optional<WeightPath> Packer::pathOfSlices(Value operand) {
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
  ValueRange weights(operand);
  if (path.dequantize)
    weights = path.dequantize.getFields();
  // The operand is a weight, or what is decoded.
  bool hasExperts = cast<RankedTensorType>(operand.getType()).getRank() == 3;
  if (!preparation.findSources(weights, hasExperts, path.sources))
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
                        matmul.getTransposed(), panels,
                        /*extents=*/DenseI64ArrayAttr())
      .getResult();
}

/// True if slices of the fields of encoded matrices are those of a slice of the
/// matrices: of rows that begin with a block of the format.
static bool slicesFields(tensor::ExtractSliceOp slice, FormatAttr format) {
  for (int64_t index = 0; index < format.getNumOperands(); ++index) {
    int64_t rows = format.getBlockRows(index);
    if (rows == 0) // packs rows
      return false;
    if (rows >= slice.getSourceType().getDimSize(1))
      continue; // one number for all rows
    if (rows > 1 &&
        (slice.getStaticStride(1) != 1 || slice.getStaticOffset(1) % rows != 0))
      return false;
  }
  return slice.getStaticOffset(2) == 0 && slice.getStaticStride(2) == 1 &&
         slice.getType().getDimSize(2) == slice.getSourceType().getDimSize(2);
}

/// Returns the format of all weights of a matmul if kernels read it without
/// decoding it first; otherwise null.
static FormatAttr packedFormatOf(GroupedMatmulOp matmul,
                                 ArrayRef<WeightPath> paths,
                                 const CPUDescription &cpu) {
  if (paths.empty() || !paths.front().dequantize || !matmul.getTransposed() ||
      !hasQuantizedKernels(cpu))
    return {};
  DequantizeOp first = paths.front().dequantize;
  FormatAttr format = first.getFormat();
  std::optional<PackedFormat> packed = PackedFormat::get(format);
  if (!packed || matmul.getK() % packed->getStep() != 0)
    return {};
  Type rows =
      cast<RankedTensorType>(matmul.getLhs().getType()).getElementType();
  if (!hasFloatKernel(cpu, *packed, rows) &&
      !canQuantizeRows(matmul, cpu, *packed))
    return {};
  for (const WeightPath &path : paths) {
    DequantizeOp dequantize = path.dequantize;
    bool isOfRows = llvm::all_of(
        path.slices, [&](auto slice) { return slicesFields(slice, format); });
    if (!dequantize || dequantize.getFormat() != format || !isOfRows)
      return {};
  }
  return format;
}

PanelsAttr Packer::panelsOf(GroupedMatmulOp matmul,
                            ArrayRef<WeightPath> paths) {
  Type element =
      cast<RankedTensorType>(matmul.getLhs().getType()).getElementType();
  PanelsAttr panels =
      choosePanels(cpu, element, matmul.getNumAccumulators(), matmul.getN());
  if (FormatAttr format = packedFormatOf(matmul, paths, cpu))
    return PanelsAttr::get(format.getContext(), panels.getMatmuls(),
                           panels.getColumns(),
                           PackedFormat::get(format)->getStep(), format);
  return panels;
}

/// Applies the slices of a path to matrices.
static Value sliceMatrices(ImplicitLocOpBuilder &b, const WeightPath &path,
                           Value weight) {
  for (tensor::ExtractSliceOp slice : path.slices) {
    SmallVector<OpFoldResult> offsets = slice.getMixedOffsets();
    SmallVector<OpFoldResult> sizes = slice.getMixedSizes();
    sizes[0] = tensor::getMixedSize(b, b.getLoc(), weight, 0);
    weight = tensor::ExtractSliceOp::create(b, weight, offsets, sizes,
                                            slice.getMixedStrides());
  }
  return weight;
}

/// Applies the slices of a path, which are of rows (see packedFormatOf), to a
/// field that has a number for each `blockRows` of them.
static Value sliceField(ImplicitLocOpBuilder &b, const WeightPath &path,
                        Value field, int64_t blockRows) {
  for (tensor::ExtractSliceOp slice : path.slices) {
    auto type = cast<RankedTensorType>(field.getType());
    if (type.getRank() < 2 ||
        (blockRows > 1 && blockRows >= slice.getSourceType().getDimSize(1)))
      continue; // one number for all rows
    SmallVector<OpFoldResult> offsets(type.getRank(), b.getIndexAttr(0));
    SmallVector<OpFoldResult> strides(type.getRank(), b.getIndexAttr(1));
    SmallVector<OpFoldResult> sizes =
        tensor::getMixedSizes(b, b.getLoc(), field);
    offsets[1] = b.getIndexAttr(slice.getStaticOffset(1) / blockRows);
    strides[1] = b.getIndexAttr(slice.getStaticStride(1));
    sizes[1] = b.getIndexAttr(
        llvm::divideCeil(slice.getType().getDimSize(1), blockRows));
    field = tensor::ExtractSliceOp::create(b, field, offsets, sizes, strides);
  }
  return field;
}

Value Packer::prepare(GroupedMatmulOp matmul, PanelsAttr panels,
                      ArrayRef<WeightPath> paths) {
  SmallVector<WeightPreparation::Source> sources;
  for (const WeightPath &path : paths)
    llvm::append_range(sources, path.sources);

  auto build = [&](ImplicitLocOpBuilder &b, ValueRange arguments) -> Value {
    SmallVector<Value> weights;
    // Of a path that is known, with other slices.
    llvm::DenseMap<Operation *, SmallVector<Value>> encoded;
    llvm::DenseMap<Operation *, Value> dequantized;
    for (const WeightPath &path : paths) {
      SmallVector<Value> fields(arguments.take_front(path.sources.size()));
      arguments = arguments.drop_front(path.sources.size());
      if (DequantizeOp op = path.dequantize) {
        SmallVector<Value> &known = encoded[op];
        if (known.empty())
          known = WeightPreparation::buildFields(b, op.getFields(), fields);
        fields = known;
      }
      if (panels.getFormat()) {
        for (auto [index, field] : llvm::enumerate(fields))
          weights.push_back(sliceField(b, path, field,
                                       panels.getFormat().getBlockRows(index)));
        continue;
      }
      Value weight =
          path.expression ? path.expression->build(b, fields) : fields.front();
      if (DequantizeOp op = path.dequantize) {
        Value &known = dequantized[op];
        if (!known)
          known = DequantizeOp::create(
              b,
              WeightPreparation::withDynamicExperts(
                  op.getType(), path.sources.front().hasExperts),
              fields, op.getFormat());
        weight = known;
      }
      weights.push_back(sliceMatrices(b, path, weight));
    }
    RankedTensorType packed = packedType(panels, ShapedType::kDynamic, matmul);
    SmallVector<OpFoldResult> sizes =
        getAsIndexOpFoldResult(b.getContext(), packed.getShape());
    sizes[0] = tensor::getMixedSize(b, b.getLoc(), weights[0], 0);
    Value init = tensor::EmptyOp::create(b, sizes, packed.getElementType());
    DenseI64ArrayAttr extents;
    if (panels.getFormat())
      extents = b.getDenseI64ArrayAttr({matmul.getK(), matmul.getN()});
    return PackOp::create(b, packed, weights, init, matmul.getTransposed(),
                          panels, extents)
        .getResult();
  };
  return preparation.add(matmul.getLoc(), "packed",
                         packedType(panels, matmul.getExpertCount(), matmul),
                         sources, build);
}

/// Erases what computed `weights` if it is dead now: slices, moe.dequantize,
/// moe.quantize.
void Packer::eraseDead(ValueRange weights) {
  llvm::SetVector<Operation *> makers;
  for (Value weight : weights)
    if (Operation *op = weight.getDefiningOp())
      makers.insert(op);
  while (!makers.empty()) {
    Operation *op = makers.pop_back_val();
    if (!isOpTriviallyDead(op))
      continue;
    for (Value operand : op->getOperands())
      if (Operation *maker = operand.getDefiningOp())
        makers.insert(maker);
    for (Prepared &known : done) // do not compare with erased values
      if (llvm::is_contained(known.weights, op->getResult(0)))
        known.weights.clear();
    op->erase();
  }
}

void Packer::run() {
  SmallVector<GroupedMatmulOp> matmuls;
  function.walk([&](GroupedMatmulOp op) {
    if (!op.getPanels() && !op.isQuantized() && op.getResult())
      matmuls.push_back(op);
  });
  for (GroupedMatmulOp matmul : matmuls) {
    SmallVector<Value> weights(matmul.getWeights());
    SmallVector<WeightPath, 1> paths;
    for (Value weight : weights)
      if (std::optional<WeightPath> path = pathOf(weight))
        paths.push_back(*path);
    bool areAllWeights = paths.size() == weights.size();
    PanelsAttr panels = panelsOf(
        matmul, areAllWeights ? ArrayRef(paths) : ArrayRef<WeightPath>());
    Value packed;
    for (const Prepared &known : done)
      if (known.weights == weights && known.panels == panels &&
          known.transposed == matmul.getTransposed())
        packed = known.packed;
    if (!packed) {
      packed = areAllWeights ? prepare(matmul, panels, paths)
                             : packInCall(matmul, panels);
      if (isa<BlockArgument>(packed))
        done.push_back({weights, panels, matmul.getTransposed(), packed});
    }
    matmul.getWeightsMutable().assign(packed);
    matmul.setTransposed(false);
    matmul.setPanelsAttr(panels);
    eraseDead(weights);
  }
  preparation.finish();
}

namespace {
struct MoEPackWeights : moe::impl::MoEPackWeightsBase<MoEPackWeights> {
  using MoEPackWeightsBase::MoEPackWeightsBase;

  void runOnOperation() override {
    CPUDescription cpu{vectorBits, vectorRegisters, bf16Dot,
                       int8Dot,    bytePermute,     prefetchedPages};
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
