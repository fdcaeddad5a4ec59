//===- QuantizedKernel.cpp - Micro-kernels of quantised weights -----------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "../StreamPrefetch.h"
#include "QuantizedKernelBuilder.h"
#include "moe/Dialect/MoE/IR/QuantizedRows.h"

#include "mlir/Dialect/LLVMIR/LLVMDialect.h"

using namespace mlir;
using namespace mlir::moe;

bool mlir::moe::hasQuantizedKernels(const CPUDescription &cpu) {
  return cpu.vectorBits == 256 || cpu.vectorBits == 512;
}

bool mlir::moe::hasFloatKernel(const CPUDescription &cpu,
                               const PackedFormat &format, Type element) {
  // Without tables of 128 bytes, codes of 8 bits have no way to bf16 that keeps
  // up with its dot products.
  bool isSlow =
      cpu.bf16Dot && element.isBF16() && format.width == 8 && !cpu.bytePermute;
  return hasQuantizedKernels(cpu) && !isSlow;
}

bool mlir::moe::hasInt8Kernel(const CPUDescription &cpu,
                              const PackedFormat &format) {
  std::optional<Int8Codes> codes = format.getInt8Codes();
  // A group of weights is half of a group of a row, or whole ones.
  bool fits = format.group == QuantizedRows::group / 2 ||
              format.group % QuantizedRows::group == 0;
  if (!hasQuantizedKernels(cpu) || !codes || !fits)
    return false;
  // Other processors multiply values that have a sign.
  return cpu.int8Dot || codes->fitInt8();
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

Value QuantizedKernelBuilder::shiftLeft(Value x, int64_t bits) {
  auto type = cast<VectorType>(x.getType());
  return bits == 0 ? x
                   : arith::ShLIOp::create(b, x, splat(type, bits)).getResult();
}

SmallVector<Value> QuantizedKernelBuilder::forEach(
    Value count, ValueRange inits,
    llvm::function_ref<SmallVector<Value>(Value, ValueRange)> body) {
  auto loop = scf::ForOp::create(b, b.index(0), count, b.index(1), inits);
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(loop.getBody());
  scf::YieldOp::create(b,
                       body(loop.getInductionVar(), loop.getRegionIterArgs()));
  return llvm::to_vector_of<Value>(loop.getResults());
}

SmallVector<SmallVector<Value>> QuantizedKernelBuilder::loadWords(Value byte) {
  SmallVector<SmallVector<Value>> words(kernel.vectors);
  for (int64_t word = 0; word < format.getWords(); ++word)
    for (int64_t j = 0; j < kernel.vectors; ++j) {
      int64_t first = word * kernel.getColumns() + j * kernel.lanes;
      words[j].push_back(loadWeights(i32, b.add(byte, 4 * first)));
    }
  return words;
}

SmallVector<Value> QuantizedKernelBuilder::unpack(ArrayRef<Value> words) {
  if (format.width == 8)
    return llvm::to_vector(words);
  SmallVector<Value> codes;
  for (Value word : words.take_back(format.getStep() / 8))
    for (int64_t half = 0; half < 2; ++half)
      codes.push_back(bitAnd(shiftRight(word, 4 * half), 0x0f0f0f0f));
  if (format.width == 6)
    for (auto [j, code] : llvm::enumerate(codes)) {
      int64_t shift = 2 * int64_t(j) - 4; // from bits 2j to bits 4 and 5
      Value upper =
          shift < 0 ? shiftLeft(words[0], -shift) : shiftRight(words[0], shift);
      code = arith::OrIOp::create(b, code, bitAnd(upper, 0x30303030));
    }
  return codes;
}

Value QuantizedKernelBuilder::scaled(Value x, double factor) {
  if (factor == 1)
    return x;
  Value factors =
      arith::ConstantOp::create(b, DenseElementsAttr::get(f32, float(factor)));
  return arith::MulFOp::create(b, x, factors);
}

/// Loads the numbers of a vector of columns, in f32.
Value QuantizedKernelBuilder::numberOf(FieldAttr number, Value byte) {
  Type element = number.getElement();
  if (isa<Float32Type, Float16Type, BFloat16Type>(element)) {
    Value loaded = loadWeights(VectorType::get(kernel.lanes, element), byte);
    return element.isF32() ? loaded : arith::ExtFOp::create(b, f32, loaded);
  }
  Value codes = loadWeights(VectorType::get(kernel.lanes, b.getI8Type()), byte);
  if (isa<IntegerType>(element)) {
    if (element.isSignedInteger())
      return arith::SIToFPOp::create(b, f32, codes);
    return arith::UIToFPOp::create(b, f32, codes);
  }
  Value bits = shiftLeft(arith::ExtUIOp::create(b, i32, codes), 23);
  // 2^-127 is subnormal, and 255 is NaN.
  bits = arith::MaxUIOp::create(b, bits, splat(i32, 0x00400000));
  Value isNaN = arith::CmpIOp::create(b, arith::CmpIPredicate::eq, bits,
                                      splat(i32, 0x7f800000));
  bits = arith::SelectOp::create(b, isNaN, splat(i32, 0x7fc00000), bits);
  return bitCast(f32, bits);
}

/// Returns a product of numbers for one vector of columns.
Value QuantizedKernelBuilder::productOf(ArrayRef<FieldAttr> numbers,
                                        int64_t vector) {
  Value product;
  for (FieldAttr number : numbers) {
    Value start = format.isOfBlock(number) ? blockStart : groupEnd;
    int64_t offset = format.getNumberOffset(number) * kernel.getColumns() +
                     PackedFormat::getBytes(number) * vector * kernel.lanes;
    Value factor = numberOf(number, b.add(start, offset));
    product = product ? arith::MulFOp::create(b, product, factor).getResult()
                      : factor;
  }
  return product;
}

std::pair<Value, Value> QuantizedKernelBuilder::factorsOf(int64_t vector) {
  Value scale = productOf(format.scales, vector);
  Value excess;
  if (double each = getExcess(); each != 0)
    excess = scaled(scale, each);
  if (format.hasMins()) {
    Value minimum = productOf(format.mins, vector);
    if (format.scalesMins)
      minimum = arith::MulFOp::create(b, minimum, scale);
    minimum = scaled(minimum, getFactor());
    excess = excess ? arith::AddFOp::create(b, excess, minimum).getResult()
                    : minimum;
  }
  if (excess)
    excess = arith::NegFOp::create(b, excess);
  return {scale, excess};
}

void QuantizedKernelBuilder::prefetch(Value start, int64_t bytes) {
  prefetchStream(b, kernel.prefetchedPages, argument(Weights), argument(Start),
                 argument(End), b.sub(start, argument(Start)), bytes);
}

/// Adds a group to the accumulators: group `inBlock` of the current block.
SmallVector<Value> QuantizedKernelBuilder::buildGroup(Value number,
                                                      Value inBlock,
                                                      Value steps,
                                                      ValueRange accumulators) {
  int64_t columns = kernel.getColumns();
  Value start = b.add(blockStart, columns * format.getNumberBytes(true));
  start = b.add(start, b.mul(inBlock, columns * format.getGroupBytes()));
  groupEnd = b.add(start, b.mul(steps, columns * format.getStepBytes()));
  if (!prefetchesInGroup())
    prefetch(start, columns * format.getGroupBytes());
  return addGroup({number, start, steps}, accumulators);
}

SmallVector<Value> QuantizedKernelBuilder::addGroup(const Group &group,
                                                    ValueRange accumulators) {
  Sums sums = sumsOf(group);
  SmallVector<Value> results(accumulators);
  for (int64_t j = 0; j < kernel.vectors; ++j) {
    auto [scale, excess] = factorsOf(j);
    for (int64_t i = 0; i < rows; ++i) {
      Value &result = results[i * kernel.vectors + j];
      result = vector::FMAOp::create(b, sums.products[i * kernel.vectors + j],
                                     scale, result);
      if (excess)
        result = vector::FMAOp::create(b, sums.rows[i], excess, result);
    }
  }
  return results;
}

/// Returns the accumulators of all groups.
SmallVector<Value> QuantizedKernelBuilder::buildGroups() {
  int64_t perBlock = format.block / format.group;
  int64_t blockBytes = kernel.getColumns() * format.getBlockBytes();
  Value groups = argument(Groups);
  Value steps = b.index(format.group / format.getStep());
  SmallVector<Value> zeros(rows * kernel.vectors, zero(f32));
  SmallVector<Value> accumulators = forEach(
      b.ceilDiv(groups, perBlock), zeros, [&](Value block, ValueRange outer) {
        blockStart = b.add(argument(Start), b.mul(block, blockBytes));
        if (perBlock == 1)
          return buildGroup(block, b.index(0), steps, outer);
        Value first = b.mul(block, perBlock);
        return forEach(b.min(b.index(perBlock), b.sub(groups, first)), outer,
                       [&](Value group, ValueRange inner) {
                         return buildGroup(b.add(first, group), group, steps,
                                           inner);
                       });
      });

  // A last group with fewer steps.
  Value isPartial = arith::CmpIOp::create(b, arith::CmpIPredicate::ne,
                                          argument(Rest), b.index(0));
  auto last = scf::IfOp::create(b, TypeRange(ValueRange(accumulators)),
                                isPartial, /*withElseRegion=*/true);
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(last.elseBlock());
  scf::YieldOp::create(b, accumulators);
  b.setInsertionPointToStart(last.thenBlock());
  blockStart =
      b.add(argument(Start), b.mul(b.div(groups, perBlock), blockBytes));
  Value inBlock = perBlock == 1 ? b.index(0) : b.rem(groups, perBlock);
  scf::YieldOp::create(
      b, buildGroup(groups, inBlock, argument(Rest), accumulators));
  return llvm::to_vector_of<Value>(last.getResults());
}

void QuantizedKernelBuilder::build() {
  b.setInsertionPointToStart(function.addEntryBlock());
  buildConstants();
  for (int64_t i = 0; i < rows; ++i)
    firsts.push_back(memref::LoadOp::create(b, argument(Firsts), b.index(i)));
  for (auto [i, accumulator] : llvm::enumerate(buildGroups()))
    vector::StoreOp::create(
        b, scaled(accumulator, 1 / getFactor()), argument(Accumulators),
        b.add(argument(AccumulatorsStart), i * kernel.lanes));
  func::ReturnOp::create(b);
}

/// Returns a function with the arguments of a kernel, which may be new.
static func::FuncOp getKernel(ModuleOp module, const Kernel &kernel,
                              FormatAttr format, int64_t rows,
                              StringRef prefix) {
  std::string name;
  llvm::raw_string_ostream(name)
      << prefix << PackedFormat::get(format)->width << "_" << kernel.element
      << "_" << rows << "x" << kernel.vectors << "x" << kernel.lanes
      << (kernel.depth > 1 ? "_dot" : "");
  Builder b(module.getContext());
  auto buffer = [](Type element) {
    return MemRefType::get({ShapedType::kDynamic}, element);
  };
  Type index = b.getIndexType();
  return findOrCreateKernel(
      module, name, format,
      {buffer(kernel.element), buffer(index), buffer(b.getI8Type()), index,
       buffer(b.getF32Type()), index, index, index, index});
}

func::FuncOp mlir::moe::getOrCreateExactKernel(ModuleOp module,
                                               const Kernel &kernel,
                                               FormatAttr format) {
  func::FuncOp function = getKernel(module, kernel, format, 1, "moe_exact_q");
  if (function.empty())
    buildExactKernel(function, kernel, *PackedFormat::get(format));
  return function;
}

func::FuncOp mlir::moe::getOrCreateQuantizedKernel(ModuleOp module,
                                                   const Kernel &kernel,
                                                   FormatAttr format,
                                                   int64_t rows) {
  func::FuncOp function =
      getKernel(module, kernel, format, rows, "moe_kernel_q");
  if (!function.empty())
    return function;
  PackedFormat packed = *PackedFormat::get(format);
  if (kernel.element.isInteger(8))
    buildInt8Kernel(function, kernel, packed, rows);
  else
    buildFloatKernel(function, kernel, packed, rows);
  return function;
}
