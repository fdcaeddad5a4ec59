//===- QuantizedKernel.cpp - Micro-kernels of quantised weights -----------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "QuantizedKernel.h"

#include "Lowering.h"

#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/Dialect/X86Vector/X86VectorDialect.h"

using namespace mlir;
using namespace mlir::moe;

bool mlir::moe::hasQuantizedKernels(const CPUDescription &cpu) {
  return cpu.vectorBits == 256 || cpu.vectorBits == 512;
}

namespace {
/// The arguments of a kernel function, in order.
enum Argument {
  Lhs,
  Firsts,
  Weights,
  Start,
  Accumulators,
  AccumulatorsStart,
  Groups,
  Rest
};

/// Builds the body of one kernel.
class QuantizedKernelBuilder {
public:
  QuantizedKernelBuilder(func::FuncOp function, const Kernel &kernel,
                         const PackedFormat &format, int64_t rows)
      : kernel(kernel), format(format), rows(rows), function(function),
        b(function.getLoc(), function.getContext()),
        f32(VectorType::get(kernel.lanes, b.getF32Type())),
        i32(VectorType::get(kernel.lanes, b.getI32Type())),
        usesDot(kernel.depth == 2) {}

  void build();

private:
  Value argument(Argument which) { return function.getArgument(which); }
  Value splat(VectorType type, int64_t value) {
    return arith::ConstantOp::create(
        b, DenseElementsAttr::get(type,
                                  APInt(type.getElementTypeBitWidth(), value)));
  }
  Value zero() { return arith::ConstantOp::create(b, b.getZeroAttr(f32)); }
  Value bitCast(VectorType type, Value value) {
    return value.getType() == type
               ? value
               : vector::BitCastOp::create(b, type, value).getResult();
  }
  Value shiftRight(Value x, int64_t bits) {
    auto type = cast<VectorType>(x.getType());
    return bits == 0
               ? x
               : arith::ShRUIOp::create(b, x, splat(type, bits)).getResult();
  }
  Value call(StringRef intrinsic, Type result, ValueRange operands) {
    return LLVM::CallIntrinsicOp::create(b, result, b.getStringAttr(intrinsic),
                                         operands)
        .getResult(0);
  }
  /// Loads bytes of the weights as a vector of another type.
  Value loadWeights(VectorType type, Value byte) {
    int64_t bytes = type.getNumElements() * type.getElementTypeBitWidth() / 8;
    Value loaded = vector::LoadOp::create(
        b, VectorType::get(bytes, b.getI8Type()), argument(Weights), byte);
    return bitCast(type, loaded);
  }

  void createTables();
  Value lookUpPairs(Value words, int64_t pair);
  Value lookUp(Value words, int64_t k);
  Value rowPair(Value offset);
  Value rowElement(Value offset);
  Value scaleOf(Value byte);
  void step(Value byte, Value k, MutableArrayRef<Value> sums);
  SmallVector<Value> group(Value number, Value steps, ValueRange accumulators);

  const Kernel &kernel;
  const PackedFormat &format;
  int64_t rows;
  func::FuncOp function;
  CPUBuilder b;
  VectorType f32, i32;
  bool usesDot;
  SmallVector<Value> firsts;
  Value table, upperTable; // of the values of codes
};
} // namespace

/// True if codes with bit 3 are the negated values of those without.
static bool isSigned(const PackedFormat &format) {
  for (int64_t code = 0; code < 8; ++code)
    if (format.values[code + 8] != -format.values[code])
      return false;
  return true;
}

void QuantizedKernelBuilder::createTables() {
  ArrayRef<float> values(format.values);
  if (usesDot) {
    // The 16 values twice, so that bit 4 of an index does not matter.
    SmallVector<APInt> words;
    for (int64_t i = 0; i < 32; ++i) {
      APFloat value(values[i % 16]);
      bool inexact;
      value.convert(APFloat::BFloat(), APFloat::rmNearestTiesToEven, &inexact);
      words.push_back(value.bitcastToAPInt());
    }
    auto type = VectorType::get(32, b.getI16Type());
    table = arith::ConstantOp::create(b, DenseElementsAttr::get(type, words));
    return;
  }
  auto constant = [&](ArrayRef<float> entries) -> Value {
    return arith::ConstantOp::create(b, DenseElementsAttr::get(f32, entries));
  };
  table = constant(values.take_front(kernel.lanes));
  if (kernel.lanes == 8)
    upperTable = constant(values.drop_front(8));
}

/// Returns the values of elements 2 · pair and 2 · pair + 1 of a step, in bf16.
Value QuantizedKernelBuilder::lookUpPairs(Value words, int64_t pair) {
  static constexpr int64_t shifts[] = {0, 8, 4, 12};
  auto halves = VectorType::get(2 * kernel.lanes, b.getI16Type());
  Value codes = shiftRight(bitCast(halves, words), shifts[pair]);
  // The lookup ignores all bits of an index above the lowest five.
  Value values = call("llvm.x86.avx512.permvar.hi.512", halves, {table, codes});
  return bitCast(VectorType::get(2 * kernel.lanes, b.getBF16Type()), values);
}

/// Returns the value of element `k` of a step, in f32.
Value QuantizedKernelBuilder::lookUp(Value words, int64_t k) {
  int64_t position =
      llvm::find(PackedFormat::order, k) - PackedFormat::order.begin();
  Value codes = shiftRight(words, 4 * position);
  // Lookups ignore the bits of an index above those that they need.
  if (kernel.lanes == 16)
    return call("llvm.x86.avx512.permvar.sf.512", f32, {table, codes});
  Value low = call("llvm.x86.avx2.permps", f32, {table, codes});
  // Bit 3 of the code, as the sign.
  Value bit = arith::ShLIOp::create(b, codes, splat(i32, 28));
  if (isSigned(format)) {
    Value sign = arith::AndIOp::create(b, bit, splat(i32, int64_t(1) << 31));
    Value bits = arith::XOrIOp::create(b, bitCast(i32, low), sign);
    return bitCast(f32, bits);
  }
  Value high = call("llvm.x86.avx2.permps", f32, {upperTable, codes});
  Value isHigh =
      arith::CmpIOp::create(b, arith::CmpIPredicate::slt, bit, splat(i32, 0));
  return arith::SelectOp::create(b, isHigh, high, low);
}

/// Broadcasts a pair of elements of a row.
Value QuantizedKernelBuilder::rowPair(Value offset) {
  auto pair = VectorType::get(2, kernel.element);
  Value both = vector::LoadOp::create(b, pair, argument(Lhs), offset);
  Value bits = bitCast(VectorType::get(1, b.getI32Type()), both);
  bits = vector::BroadcastOp::create(b, i32, bits);
  return bitCast(VectorType::get(2 * kernel.lanes, kernel.element), bits);
}

/// Broadcasts an element of a row in f32.
Value QuantizedKernelBuilder::rowElement(Value offset) {
  Value scalar = memref::LoadOp::create(b, argument(Lhs), offset);
  if (!kernel.element.isF32())
    scalar = arith::ExtFOp::create(b, b.getF32Type(), scalar);
  return vector::BroadcastOp::create(b, f32, scalar);
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

/// Adds the products of eight elements along k, from `k` on, to the sums.
void QuantizedKernelBuilder::step(Value byte, Value k,
                                  MutableArrayRef<Value> sums) {
  SmallVector<Value> words;
  for (int64_t j = 0; j < kernel.vectors; ++j)
    words.push_back(loadWeights(i32, b.add(byte, 4 * j * kernel.lanes)));
  int64_t width = usesDot ? 2 : 1;
  for (int64_t part = 0; part < PackedFormat::step / width; ++part) {
    SmallVector<Value> values;
    for (Value word : words)
      values.push_back(usesDot ? lookUpPairs(word, part) : lookUp(word, part));
    for (int64_t i = 0; i < rows; ++i) {
      Value offset = b.add(b.add(firsts[i], k), part * width);
      Value x = usesDot ? rowPair(offset) : rowElement(offset);
      for (int64_t j = 0; j < kernel.vectors; ++j) {
        Value &sum = sums[i * kernel.vectors + j];
        if (usesDot)
          sum = x86vector::DotBF16Op::create(b, f32, sum, x, values[j]);
        else
          sum = vector::FMAOp::create(b, x, values[j], sum);
      }
    }
  }
}

/// Adds `steps` steps of a group to the accumulators, scaled.
SmallVector<Value> QuantizedKernelBuilder::group(Value number, Value steps,
                                                 ValueRange accumulators) {
  int64_t columns = kernel.getColumns();
  Value start =
      b.add(argument(Start), b.mul(number, format.getGroupBytes(columns)));
  Value k = b.mul(number, format.group);
  auto loop =
      scf::ForOp::create(b, b.index(0), steps, b.index(1),
                         SmallVector<Value>(accumulators.size(), zero()));
  {
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(loop.getBody());
    SmallVector<Value> sums(loop.getRegionIterArgs());
    Value number = loop.getInductionVar();
    step(b.add(start, b.mul(number, 4 * columns)),
         b.add(k, b.mul(number, PackedFormat::step)), sums);
    scf::YieldOp::create(b, sums);
  }
  SmallVector<Value> results(accumulators);
  Value scales = b.add(start, columns * format.group / 2);
  for (int64_t j = 0; j < kernel.vectors; ++j) {
    Value scale =
        scaleOf(b.add(scales, j * kernel.lanes * format.getScaleBytes()));
    for (int64_t i = 0; i < rows; ++i) {
      Value &result = results[i * kernel.vectors + j];
      result = vector::FMAOp::create(b, loop.getResult(i * kernel.vectors + j),
                                     scale, result);
    }
  }
  return results;
}

void QuantizedKernelBuilder::build() {
  b.setInsertionPointToStart(function.addEntryBlock());
  createTables();
  for (int64_t i = 0; i < rows; ++i)
    firsts.push_back(memref::LoadOp::create(b, argument(Firsts), b.index(i)));
  SmallVector<Value> zeros(rows * kernel.vectors, zero());
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
        b, accumulator, argument(Accumulators),
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
  QuantizedKernelBuilder(function, kernel, *PackedFormat::get(format), rows)
      .build();
  return function;
}
