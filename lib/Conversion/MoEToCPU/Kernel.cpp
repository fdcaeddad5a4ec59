//===- Kernel.cpp - One tile of a product, in registers -------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Kernel.h"

#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/Dialect/X86Vector/X86VectorDialect.h"

using namespace mlir;
using namespace mlir::moe;

static constexpr int64_t lineBytes = 64;

/// Whether the processor multiplies pairs of this type into f32 sums.
static bool hasDot(const CPUDescription &cpu, Type element) {
  return cpu.bf16Dot && element.isBF16();
}

/// Rows of a tile so that sums, a row of the panel and one broadcast element fit
/// the registers. With fewer than eight sums the latency of an addition shows.
static int64_t maxRowsOf(const CPUDescription &cpu, int64_t vectors) {
  int64_t most = vectors == 1 ? 8 : 6;
  return std::clamp<int64_t>((cpu.vectorRegisters - vectors - 1) / vectors, 1,
                             most);
}

ArrayRef<int64_t> mlir::moe::getKernelHeights() {
  static constexpr int64_t heights[] = {1, 2, 4, 6};
  return heights;
}

PanelsAttr mlir::moe::choosePanels(const CPUDescription &cpu, Type element,
                                   int64_t products, int64_t columns) {
  // As wide as leaves registers for a tile of some rows; narrower where that
  // pads less.
  int64_t widest = std::max(cpu.vectorRegisters >= 32 ? int64_t(4) : int64_t(2),
                            products);
  int64_t best = products, bestPadded = 0;
  for (int64_t vectors = products; vectors <= widest; vectors += products) {
    int64_t share = vectors / products * cpu.getLanes();
    int64_t padded = llvm::alignTo(columns, share);
    if (bestPadded == 0 || padded <= bestPadded) {
      best = vectors;
      bestPadded = padded;
    }
  }
  return PanelsAttr::get(element.getContext(), products, best * cpu.getLanes(),
                         hasDot(cpu, element) ? 2 : 1);
}

Kernel mlir::moe::chooseKernel(const CPUDescription &cpu, Type element,
                               PanelsAttr panels) {
  int64_t vectors = panels.getColumns() / cpu.getLanes();
  return {element, cpu.getLanes(), vectors, maxRowsOf(cpu, vectors),
          panels.getDepth()};
}

namespace {
/// The arguments of a kernel, in order.
enum Argument {
  Lhs, Firsts, Weights, Start, Sums, SumsStart, Steps, Tail, Ahead, AheadStep,
  Resume
};

/// What a loop brings into the cache.
enum class Prefetched { Nothing, Soon, Given };

/// Builds the body of one kernel.
class KernelBuilder {
public:
  KernelBuilder(func::FuncOp function, const Kernel &kernel, int64_t rows)
      : kernel(kernel), rows(rows), function(function),
        b(function.getLoc(), function.getContext()),
        f32(VectorType::get(kernel.lanes, b.getF32Type())) {}

  void build();

private:
  Value index(int64_t value) { return arith::ConstantIndexOp::create(b, value); }
  Value add(Value x, Value y) { return arith::AddIOp::create(b, x, y); }
  Value add(Value x, int64_t y) { return y == 0 ? x : add(x, index(y)); }
  Value mul(Value x, int64_t y) { return arith::MulIOp::create(b, x, index(y)); }
  Value argument(Argument which) { return function.getArgument(which); }
  /// The element of the weights where step `k` reads.
  Value placeOf(Value k) {
    return add(argument(Start), mul(k, kernel.getStep()));
  }
  /// Cache lines of weights that some steps read.
  int64_t linesOf(int64_t steps) {
    return std::max<int64_t>(
        1, kernel.bytesOf(steps * kernel.getStep()) / lineBytes);
  }

  SmallVector<Value> loadSums();
  SmallVector<Value> loop(Value from, Value to, int64_t unroll,
                          Prefetched what, ValueRange sums);
  SmallVector<Value> unrolledLoop(Value to, ValueRange sums);
  SmallVector<Value> lastStep(ValueRange sums);
  void prefetch(Value place, int64_t count);
  void step(Value k, bool whole, MutableArrayRef<Value> sums);
  Value broadcast(Value place, bool whole);
  Value widen(Value vector);

  const Kernel &kernel;
  int64_t rows;
  func::FuncOp function;
  ImplicitLocOpBuilder b;
  VectorType f32;
  SmallVector<Value> firsts;
};
} // namespace

/// What the sums start from: zero, or what they were after an earlier block.
SmallVector<Value> KernelBuilder::loadSums() {
  Value resume = argument(Resume);
  SmallVector<Type> types(rows * kernel.vectors, f32);
  auto choice = scf::IfOp::create(b, types, resume, /*withElseRegion=*/true);
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(choice.thenBlock());
  SmallVector<Value> loaded;
  for (int64_t i = 0; i < rows * kernel.vectors; ++i)
    loaded.push_back(vector::LoadOp::create(
        b, f32, argument(Sums), add(argument(SumsStart), i * kernel.lanes)));
  scf::YieldOp::create(b, loaded);
  b.setInsertionPointToStart(choice.elseBlock());
  Value zero = arith::ConstantOp::create(b, b.getZeroAttr(f32));
  scf::YieldOp::create(b, SmallVector<Value>(types.size(), zero));
  return llvm::to_vector_of<Value>(choice.getResults());
}

/// The next element of a row of the left operand, in every lane; two of them
/// beside each other for dot products.
Value KernelBuilder::broadcast(Value place, bool whole) {
  Value lhs = argument(Lhs);
  if (kernel.depth == 1) {
    Value scalar = memref::LoadOp::create(b, lhs, place);
    if (!kernel.element.isF32())
      scalar = arith::ExtFOp::create(b, b.getF32Type(), scalar);
    return vector::BroadcastOp::create(b, f32, scalar);
  }
  auto pair = VectorType::get(2, kernel.element);
  Value both;
  if (whole) {
    both = vector::LoadOp::create(b, pair, lhs, place);
  } else {
    // The row ends with the first of a pair.
    Value zero = arith::ConstantOp::create(b, b.getZeroAttr(kernel.element));
    Value last = memref::LoadOp::create(b, lhs, place);
    both = vector::FromElementsOp::create(b, pair, ValueRange{last, zero});
  }
  Value bits = vector::BitCastOp::create(
      b, VectorType::get(1, b.getI32Type()), both);
  bits = vector::BroadcastOp::create(
      b, VectorType::get(kernel.lanes, b.getI32Type()), bits);
  return vector::BitCastOp::create(
      b, VectorType::get(2 * kernel.lanes, kernel.element), bits);
}

Value KernelBuilder::widen(Value vector) {
  return kernel.element.isF32() ? vector
                                : arith::ExtFOp::create(b, f32, vector);
}

/// One step along k: every row times every vector of the panel.
void KernelBuilder::step(Value k, bool whole, MutableArrayRef<Value> sums) {
  Value row = placeOf(k);
  int64_t width = kernel.lanes * kernel.depth;
  auto packed = VectorType::get(width, kernel.element);
  SmallVector<Value> weights;
  for (int64_t j = 0; j < kernel.vectors; ++j) {
    Value loaded =
        vector::LoadOp::create(b, packed, argument(Weights), add(row, j * width));
    weights.push_back(kernel.depth == 1 ? widen(loaded) : loaded);
  }
  for (int64_t i = 0; i < rows; ++i) {
    Value place = add(firsts[i], mul(k, kernel.depth));
    Value x = broadcast(place, whole);
    for (int64_t j = 0; j < kernel.vectors; ++j) {
      Value &sum = sums[i * kernel.vectors + j];
      if (kernel.depth == 2)
        sum = x86vector::DotBF16Op::create(b, f32, sum, x, weights[j]);
      else
        sum = vector::FMAOp::create(b, x, weights[j], sum);
    }
  }
}

/// Bring `count` lines from `place` of the weights on into the cache.
void KernelBuilder::prefetch(Value place, int64_t count) {
  for (int64_t i = 0; i < count; ++i)
    memref::PrefetchOp::create(
        b, argument(Weights), add(place, i * kernel.elementsIn(lineBytes)),
        /*isWrite=*/false, /*localityHint=*/rows == 1 ? 3 : 2,
        /*isDataCache=*/true);
}

/// `unroll` steps at a time.
SmallVector<Value> KernelBuilder::loop(Value from, Value to, int64_t unroll,
                                       Prefetched what, ValueRange sums) {
  SmallVector<Value> inits(sums);
  if (what == Prefetched::Given)
    inits.push_back(argument(Ahead));
  auto loop = scf::ForOp::create(b, from, to, index(unroll), inits);
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(loop.getBody());
  SmallVector<Value> current(loop.getRegionIterArgs());
  Value ahead;
  if (what == Prefetched::Given) {
    ahead = current.pop_back_val();
    prefetch(ahead, linesOf(unroll) / 2);
  }
  // One row leaves time for little more than the loads and wants what it reads
  // close; more rows pass more slowly.
  int64_t distance = kernel.elementsIn(rows == 1 ? 8 << 10 : 64 << 10);
  for (int64_t u = 0; u < unroll; ++u) {
    Value k = add(loop.getInductionVar(), u);
    if (what == Prefetched::Soon)
      prefetch(add(placeOf(k), distance), linesOf(1));
    step(k, /*whole=*/true, current);
  }
  if (ahead)
    current.push_back(add(ahead, argument(AheadStep)));
  scf::YieldOp::create(b, current);
  return llvm::to_vector_of<Value>(loop.getResults().take_front(sums.size()));
}

/// The loop over `to` steps, a multiple of those that are taken at a time.
SmallVector<Value> KernelBuilder::unrolledLoop(Value to, ValueRange sums) {
  auto build = [&](Prefetched what) {
    return loop(index(0), to, Kernel::unroll, what, sums);
  };
  if (rows == 1)
    return build(Prefetched::Soon);
  Value isGiven = arith::CmpIOp::create(b, arith::CmpIPredicate::ne,
                                        argument(AheadStep), index(0));
  auto choice = scf::IfOp::create(b, TypeRange(sums), isGiven,
                                  /*withElseRegion=*/true);
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(choice.thenBlock());
  scf::YieldOp::create(b, build(Prefetched::Given));
  b.setInsertionPointToStart(choice.elseBlock());
  scf::YieldOp::create(b, build(Prefetched::Soon));
  return llvm::to_vector_of<Value>(choice.getResults());
}

/// Where depth is two a row may end with the first of a pair.
SmallVector<Value> KernelBuilder::lastStep(ValueRange sums) {
  Value hasTail = arith::CmpIOp::create(b, arith::CmpIPredicate::ne,
                                        argument(Tail), index(0));
  auto tail = scf::IfOp::create(b, TypeRange(sums), hasTail,
                                /*withElseRegion=*/true);
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(tail.elseBlock());
  scf::YieldOp::create(b, sums);
  b.setInsertionPointToStart(tail.thenBlock());
  SmallVector<Value> current(sums);
  step(argument(Steps), /*whole=*/false, current);
  scf::YieldOp::create(b, current);
  return llvm::to_vector_of<Value>(tail.getResults());
}

void KernelBuilder::build() {
  b.setInsertionPointToStart(function.addEntryBlock());
  for (int64_t i = 0; i < rows; ++i)
    firsts.push_back(memref::LoadOp::create(b, argument(Firsts), index(i)));
  SmallVector<Value> sums = loadSums();
  Value steps = argument(Steps);
  Value rest = arith::RemUIOp::create(b, steps, index(Kernel::unroll));
  Value unrolled = arith::SubIOp::create(b, steps, rest);
  sums = unrolledLoop(unrolled, sums);
  sums = loop(unrolled, steps, 1, Prefetched::Nothing, sums);
  if (kernel.depth > 1)
    sums = lastStep(sums);
  for (auto [i, sum] : llvm::enumerate(sums))
    vector::StoreOp::create(b, sum, argument(Sums),
                            add(argument(SumsStart), i * kernel.lanes));
  func::ReturnOp::create(b);
}

func::FuncOp mlir::moe::getOrCreateKernel(ModuleOp module, const Kernel &kernel,
                                          int64_t rows) {
  std::string name;
  llvm::raw_string_ostream(name)
      << "moe_kernel_" << kernel.element << "_" << rows << "x" << kernel.vectors
      << "x" << kernel.lanes << (kernel.depth > 1 ? "_dot" : "");
  // Another function may have the name.
  for (;; name += '_') {
    Operation *existing = module.lookupSymbol(name);
    if (!existing)
      break;
    if (existing->hasAttr("moe.kernel"))
      return cast<func::FuncOp>(existing);
  }
  OpBuilder b(module.getBodyRegion());
  auto buffer = [](Type element) {
    return MemRefType::get({ShapedType::kDynamic}, element);
  };
  Type elements = buffer(kernel.element), index = b.getIndexType();
  auto type = b.getFunctionType({elements, buffer(index), elements, index,
                                 buffer(b.getF32Type()), index, index, index,
                                 index, index, b.getI1Type()},
                                {});
  auto function = func::FuncOp::create(b, module.getLoc(), name, type);
  function.setPrivate();
  function->setAttr("moe.kernel", b.getUnitAttr());
  // A loop of its own registers, for the code generator as for the reader.
  function->setAttr("passthrough", b.getStrArrayAttr({"noinline"}));
  KernelBuilder(function, kernel, rows).build();
  return function;
}
