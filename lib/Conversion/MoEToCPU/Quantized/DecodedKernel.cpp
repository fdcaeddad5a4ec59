//===- DecodedKernel.cpp - Kernels of decoded weights ---------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Values of codes are decoded once for many rows. A kernel then only multiplies
// them; the scales of a group multiply its sums as in a kernel that decodes, so
// that the bits are the same.
//
//===----------------------------------------------------------------------===//

#include "QuantizedKernelBuilder.h"

#include "mlir/Dialect/X86Vector/X86VectorDialect.h"

using namespace mlir;
using namespace mlir::moe;

namespace {
class GroupKernelBuilder {
public:
  GroupKernelBuilder(func::FuncOp function, const Kernel &kernel,
                     int64_t groupSteps, int64_t rowSumsStride, int64_t rows)
      : kernel(kernel), groupSteps(groupSteps), rowSumsStride(rowSumsStride),
        rows(rows), function(function),
        b(function.getLoc(), function.getContext()),
        f32(VectorType::get(kernel.lanes, b.getF32Type())),
        weights(VectorType::get(kernel.lanes * kernel.depth, kernel.element)) {}

  void build();

private:
  enum Argument {
    Lhs,
    Firsts,
    Values,
    Factors,
    RowSums,
    RowSumsStart,
    Accumulators,
    AccumulatorsStart,
    Groups,
    Rest
  };
  Value argument(Argument which) { return function.getArgument(which); }
  Value broadcast(Value offset);
  void step(Value k, MutableArrayRef<Value> sums);
  SmallVector<Value> loop(Value from, Value to, int64_t unroll,
                          ValueRange sums);
  void buildGroup(Value group, Value steps);

  const Kernel &kernel;
  int64_t groupSteps, rowSumsStride, rows;
  func::FuncOp function;
  CPUBuilder b;
  VectorType f32, weights;
  SmallVector<Value> firsts;
};
} // namespace

/// Broadcasts an element, or a pair, of a row.
Value GroupKernelBuilder::broadcast(Value offset) {
  if (kernel.depth == 1)
    return vector::BroadcastOp::create(
        b, f32, memref::LoadOp::create(b, argument(Lhs), offset));
  auto pair = VectorType::get(kernel.depth, kernel.element);
  Value bits = vector::LoadOp::create(b, pair, argument(Lhs), offset);
  bits = vector::BitCastOp::create(b, VectorType::get(1, b.getI32Type()), bits);
  bits = vector::BroadcastOp::create(
      b, VectorType::get(kernel.lanes, b.getI32Type()), bits);
  return vector::BitCastOp::create(b, weights, bits);
}

/// Adds the products of step `k` of the block.
void GroupKernelBuilder::step(Value k, MutableArrayRef<Value> sums) {
  SmallVector<Value> values;
  Value start = b.mul(k, kernel.getStep());
  for (int64_t j = 0; j < kernel.vectors; ++j)
    values.push_back(
        vector::LoadOp::create(b, weights, argument(Values),
                               b.add(start, j * weights.getNumElements())));
  for (int64_t i = 0; i < rows; ++i) {
    Value x = broadcast(b.add(firsts[i], b.mul(k, kernel.depth)));
    for (int64_t j = 0; j < kernel.vectors; ++j) {
      Value &sum = sums[i * kernel.vectors + j];
      if (kernel.depth == 2)
        sum = x86vector::DotBF16Op::create(b, f32, sum, x, values[j]);
      else
        sum = vector::FMAOp::create(b, x, values[j], sum);
    }
  }
}

SmallVector<Value> GroupKernelBuilder::loop(Value from, Value to,
                                            int64_t unroll, ValueRange sums) {
  auto loop = scf::ForOp::create(b, from, to, b.index(unroll), sums);
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(loop.getBody());
  SmallVector<Value> current(loop.getRegionIterArgs());
  for (int64_t u = 0; u < unroll; ++u)
    step(b.add(loop.getInductionVar(), u), current);
  scf::YieldOp::create(b, current);
  return llvm::to_vector_of<Value>(loop.getResults());
}

/// Adds `steps` steps, a multiple of 4, of a group to the accumulators.
void GroupKernelBuilder::buildGroup(Value group, Value steps) {
  Value zero = arith::ConstantOp::create(b, b.getZeroAttr(f32));
  SmallVector<Value> sums(rows * kernel.vectors, zero);
  Value first = b.mul(group, groupSteps);
  sums = loop(first, b.add(first, steps), Kernel::unroll, sums);
  int64_t columns = kernel.getColumns();
  Value factors = b.mul(group, 2 * columns);
  for (int64_t j = 0; j < kernel.vectors; ++j) {
    auto load = [&](int64_t which) {
      return vector::LoadOp::create(
          b, f32, argument(Factors),
          b.add(factors, which * columns + j * kernel.lanes));
    };
    Value scale = load(0), excess = rowSumsStride > 0 ? load(1) : Value();
    for (int64_t i = 0; i < rows; ++i) {
      Value at =
          b.add(argument(AccumulatorsStart), i * columns + j * kernel.lanes);
      Value sum = vector::LoadOp::create(b, f32, argument(Accumulators), at);
      sum = vector::FMAOp::create(b, sums[i * kernel.vectors + j], scale, sum);
      if (excess) {
        Value rowSum = memref::LoadOp::create(
            b, argument(RowSums),
            b.add(b.add(argument(RowSumsStart), i * rowSumsStride), group));
        rowSum = vector::BroadcastOp::create(b, f32, rowSum);
        sum = vector::FMAOp::create(b, rowSum, excess, sum);
      }
      vector::StoreOp::create(b, sum, argument(Accumulators), at);
    }
  }
}

void GroupKernelBuilder::build() {
  b.setInsertionPointToStart(function.addEntryBlock());
  for (int64_t i = 0; i < rows; ++i)
    firsts.push_back(memref::LoadOp::create(b, argument(Firsts), b.index(i)));
  b.forEach(b.index(0), argument(Groups),
            [&](Value group) { buildGroup(group, b.index(groupSteps)); });
  b.ifThen(b.less(b.index(0), argument(Rest)),
           [&] { buildGroup(argument(Groups), argument(Rest)); });
  func::ReturnOp::create(b);
}

static MemRefType bufferOf(Type element) {
  return MemRefType::get({ShapedType::kDynamic}, element);
}

func::FuncOp mlir::moe::getOrCreateDecoder(ModuleOp module,
                                           const Kernel &kernel,
                                           FormatAttr format, Decoded what) {
  Builder b(module.getContext());
  Type element = kernel.depth == 2 && what == Decoded::Values
                     ? b.getBF16Type()
                     : Type(b.getF32Type());
  Type index = b.getIndexType();
  std::string name = what == Decoded::Values ? "moe_decode_" : "moe_factors_";
  llvm::raw_string_ostream(name)
      << "q" << PackedFormat::get(format)->width << "_" << kernel.vectors << "x"
      << kernel.lanes << (kernel.depth > 1 ? "_dot" : "");
  func::FuncOp function = findOrCreateKernel(
      module, name, format,
      {index, index, bufferOf(b.getI8Type()), bufferOf(element), index});
  if (function.empty())
    buildDecoder(function, kernel, *PackedFormat::get(format), what);
  return function;
}

func::FuncOp mlir::moe::getOrCreateGroupKernel(ModuleOp module,
                                               const Kernel &kernel,
                                               int64_t groupSteps,
                                               int64_t rowSumsStride,
                                               int64_t rows) {
  Builder b(module.getContext());
  Type elements = bufferOf(kernel.element), index = b.getIndexType();
  Type floats = bufferOf(b.getF32Type());
  std::string name;
  llvm::raw_string_ostream(name)
      << "moe_kernel_groups_" << kernel.element << "_" << rows << "x"
      << kernel.vectors << "x" << kernel.lanes
      << (kernel.depth > 1 ? "_dot" : "");
  func::FuncOp function = findOrCreateKernel(
      module, name, b.getI64ArrayAttr({groupSteps, rowSumsStride}),
      {elements, bufferOf(index), elements, floats, floats, index, floats,
       index, index, index});
  if (function.empty())
    GroupKernelBuilder(function, kernel, groupSteps, rowSumsStride, rows)
        .build();
  return function;
}
