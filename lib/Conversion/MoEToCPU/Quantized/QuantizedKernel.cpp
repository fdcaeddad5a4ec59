//===- QuantizedKernel.cpp - Micro-kernels of quantised weights -----------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "QuantizedKernelBuilder.h"

#include "mlir/Dialect/LLVMIR/LLVMDialect.h"

using namespace mlir;
using namespace mlir::moe;

bool mlir::moe::hasQuantizedKernels(const CPUDescription &cpu) {
  return cpu.vectorBits == 256 || cpu.vectorBits == 512;
}

bool mlir::moe::hasInt8Kernel(const CPUDescription &cpu,
                              const PackedFormat &format) {
  std::optional<Int8Codes> codes = format.getInt8Codes();
  return hasQuantizedKernels(cpu) && codes &&
         (cpu.int8Dot || codes->fitInt16());
}

QuantizedKernelBuilder::QuantizedKernelBuilder(func::FuncOp function,
                                               const Kernel &kernel,
                                               const PackedFormat &format,
                                               int64_t rows)
    : kernel(kernel), format(format), rows(rows), function(function),
      b(function.getLoc(), function.getContext()),
      f32(VectorType::get(kernel.lanes, b.getF32Type())),
      i32(VectorType::get(kernel.lanes, b.getI32Type())) {}

Value QuantizedKernelBuilder::splat(VectorType type, int64_t value) {
  return arith::ConstantOp::create(
      b, DenseElementsAttr::get(
             type, APInt(type.getElementTypeBitWidth(), value,
                         /*isSigned=*/true, /*implicitTrunc=*/true)));
}

Value QuantizedKernelBuilder::zero(VectorType type) {
  return arith::ConstantOp::create(b, b.getZeroAttr(type));
}

Value QuantizedKernelBuilder::bitCast(VectorType type, Value value) {
  return value.getType() == type
             ? value
             : vector::BitCastOp::create(b, type, value).getResult();
}

Value QuantizedKernelBuilder::shiftRight(Value x, int64_t bits) {
  auto type = cast<VectorType>(x.getType());
  return bits == 0
             ? x
             : arith::ShRUIOp::create(b, x, splat(type, bits)).getResult();
}

Value QuantizedKernelBuilder::call(StringRef intrinsic, Type result,
                                   ValueRange operands) {
  return LLVM::CallIntrinsicOp::create(b, result, b.getStringAttr(intrinsic),
                                       operands)
      .getResult(0);
}

Value QuantizedKernelBuilder::loadWeights(VectorType type, Value byte) {
  int64_t bytes = type.getNumElements() * type.getElementTypeBitWidth() / 8;
  Value loaded = vector::LoadOp::create(
      b, VectorType::get(bytes, b.getI8Type()), argument(Weights), byte);
  return bitCast(type, loaded);
}

Value QuantizedKernelBuilder::broadcastRowBits(Value index, VectorType type) {
  int64_t count = 32 / kernel.element.getIntOrFloatBitWidth();
  auto loaded = VectorType::get(count, kernel.element);
  Value bits = vector::LoadOp::create(b, loaded, argument(Lhs), index);
  bits = bitCast(VectorType::get(1, b.getI32Type()), bits);
  return bitCast(type, vector::BroadcastOp::create(b, i32, bits));
}

/// Loads the scales of a vector of columns, in f32.
Value QuantizedKernelBuilder::scaleOf(Value byte) {
  Type element = format.scale.getElement();
  if (!isa<Float8E8M0FNUType>(element)) {
    Value scales = loadWeights(VectorType::get(kernel.lanes, element), byte);
    return element.isF32() ? scales : arith::ExtFOp::create(b, f32, scales);
  }
  Value codes = loadWeights(VectorType::get(kernel.lanes, b.getI8Type()), byte);
  Value bits = arith::ExtUIOp::create(b, i32, codes);
  bits = arith::ShLIOp::create(b, bits, splat(i32, 23));
  // 2^-127 is subnormal, and 255 is NaN.
  bits = arith::MaxUIOp::create(b, bits, splat(i32, 0x00400000));
  Value isNaN = arith::CmpIOp::create(b, arith::CmpIPredicate::eq, bits,
                                      splat(i32, 0x7f800000));
  bits = arith::SelectOp::create(b, isNaN, splat(i32, 0x7fc00000), bits);
  return bitCast(f32, bits);
}

/// Adds a group of `steps` steps to the accumulators.
SmallVector<Value> QuantizedKernelBuilder::group(Value number, Value steps,
                                                 ValueRange accumulators) {
  int64_t columns = kernel.getColumns();
  Value start =
      b.add(argument(Start), b.mul(number, format.getGroupBytes(columns)));
  SmallVector<Value> sums = sumsOf(number, start, steps);
  SmallVector<Value> results(accumulators);
  Value scales = b.add(start, columns * format.group / 2);
  for (int64_t j = 0; j < kernel.vectors; ++j) {
    Value scale =
        scaleOf(b.add(scales, j * kernel.lanes * format.getScaleBytes()));
    for (int64_t i = 0; i < rows; ++i) {
      Value &result = results[i * kernel.vectors + j];
      result =
          vector::FMAOp::create(b, sums[i * kernel.vectors + j], scale, result);
    }
  }
  return results;
}

void QuantizedKernelBuilder::build() {
  b.setInsertionPointToStart(function.addEntryBlock());
  buildConstants();
  for (int64_t i = 0; i < rows; ++i)
    firsts.push_back(memref::LoadOp::create(b, argument(Firsts), b.index(i)));
  SmallVector<Value> zeros(rows * kernel.vectors, zero(f32));
  auto loop =
      scf::ForOp::create(b, b.index(0), argument(Groups), b.index(1), zeros);
  {
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(loop.getBody());
    scf::YieldOp::create(b, group(loop.getInductionVar(),
                                  b.index(format.group / PackedFormat::step),
                                  loop.getRegionIterArgs()));
  }
  Value isPartial = arith::CmpIOp::create(b, arith::CmpIPredicate::ne,
                                          argument(Rest), b.index(0));
  auto last = scf::IfOp::create(b, loop.getResultTypes(), isPartial,
                                /*withElseRegion=*/true);
  {
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(last.thenBlock());
    scf::YieldOp::create(
        b, group(argument(Groups), argument(Rest), loop.getResults()));
    b.setInsertionPointToStart(last.elseBlock());
    scf::YieldOp::create(b, loop.getResults());
  }
  for (auto [i, accumulator] : llvm::enumerate(last.getResults()))
    vector::StoreOp::create(
        b, finish(accumulator), argument(Accumulators),
        b.add(argument(AccumulatorsStart), i * kernel.lanes));
  func::ReturnOp::create(b);
}

func::FuncOp mlir::moe::getOrCreateQuantizedKernel(ModuleOp module,
                                                   const Kernel &kernel,
                                                   FormatAttr format,
                                                   int64_t rows) {
  std::string name;
  llvm::raw_string_ostream(name)
      << "moe_kernel_q4_" << kernel.element << "_" << rows << "x"
      << kernel.vectors << "x" << kernel.lanes
      << (kernel.depth > 1 ? "_dot" : "");
  // Skip names of other functions and of kernels of other formats.
  for (;; name += '_') {
    Operation *existing = module.lookupSymbol(name);
    if (!existing)
      break;
    if (existing->getAttr("moe.kernel") == format)
      return cast<func::FuncOp>(existing);
  }
  OpBuilder b(module.getBodyRegion());
  auto buffer = [](Type element) {
    return MemRefType::get({ShapedType::kDynamic}, element);
  };
  Type index = b.getIndexType();
  auto type = b.getFunctionType({buffer(kernel.element), buffer(index),
                                 buffer(b.getI8Type()), index,
                                 buffer(b.getF32Type()), index, index, index},
                                {});
  auto function = func::FuncOp::create(b, module.getLoc(), name, type);
  function.setPrivate();
  function->setAttr("moe.kernel", format);
  function->setAttr("passthrough", b.getStrArrayAttr({"noinline"}));
  PackedFormat packed = *PackedFormat::get(format);
  if (kernel.element.isInteger(8))
    buildInt8Kernel(function, kernel, packed, rows);
  else
    buildFloatKernel(function, kernel, packed, rows);
  return function;
}
