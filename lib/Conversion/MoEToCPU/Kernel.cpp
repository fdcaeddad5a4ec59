//===- Kernel.cpp - CPU micro-kernels -------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Kernel.h"
#include "StreamPrefetch.h"
#include "moe/Dialect/MoE/IR/PackedFormat.h"

#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/Dialect/X86Vector/X86VectorDialect.h"

using namespace mlir;
using namespace mlir::moe;

static constexpr int64_t lineBytes = 64;

/// True if the CPU has dot products of pairs of this type into f32.
static bool hasDot(const CPUDescription &cpu, Type element) {
  return cpu.bf16Dot && element.isBF16();
}

/// Returns the number of rows for which the accumulators, a row of the panel
/// and one broadcast element fit the registers. Fewer than eight accumulators
/// cannot hide the latency of an FMA.
static int64_t maxRowsOf(const CPUDescription &cpu, int64_t vectors) {
  int64_t limit = vectors == 1 ? 8 : 6;
  return std::clamp<int64_t>((cpu.vectorRegisters - vectors - 1) / vectors, 1,
                             limit);
}

ArrayRef<int64_t> mlir::moe::getKernelHeights() {
  static constexpr int64_t heights[] = {1, 2, 4, 6};
  return heights;
}

PanelsAttr mlir::moe::choosePanels(const CPUDescription &cpu, Type element,
                                   int64_t matmuls, int64_t columns) {
  // Take the widest panel that leaves registers for several rows, or a narrower
  // one that needs less padding.
  int64_t widest =
      std::max(cpu.vectorRegisters >= 32 ? int64_t(4) : int64_t(2), matmuls);
  int64_t best = matmuls, bestPadded = 0;
  for (int64_t vectors = matmuls; vectors <= widest; vectors += matmuls) {
    int64_t share = vectors / matmuls * cpu.getLanes();
    int64_t padded = llvm::alignTo(columns, share);
    if (bestPadded == 0 || padded <= bestPadded) {
      best = vectors;
      bestPadded = padded;
    }
  }
  return PanelsAttr::get(element.getContext(), matmuls, best * cpu.getLanes(),
                         hasDot(cpu, element) ? 2 : 1, /*format=*/FormatAttr());
}

Kernel mlir::moe::chooseKernel(const CPUDescription &cpu, Type element,
                               PanelsAttr panels) {
  int64_t vectors = panels.getColumns() / cpu.getLanes();
  // Rows times quantised weights have partial sums beside the accumulators.
  if (FormatAttr format = panels.getFormat()) {
    PackedFormat packed = *PackedFormat::get(format);
    bool hasBF16 =
        packed.hasBF16Codes() || (packed.width == 8 && cpu.bytePermute);
    int64_t depth = 1;
    if (element.isInteger(8))
      depth = cpu.int8Dot ? 4 : 2;
    else if (hasDot(cpu, element) && hasBF16)
      depth = 2;
    return {element,       cpu.getLanes(), vectors,
            /*maxRows=*/4, depth,          cpu.prefetchedPages};
  }
  return {element,           cpu.getLanes(),
          vectors,           maxRowsOf(cpu, vectors),
          panels.getDepth(), cpu.prefetchedPages};
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
  Steps,
  Tail,
  Ahead,
  AheadStep,
  Resume
};

/// The weights that a loop prefetches: none, those that the arguments give, or
/// those that it will read itself.
enum class Prefetched { Nothing, Next, Own };

/// Builds the body of one kernel.
class KernelBuilder {
public:
  KernelBuilder(func::FuncOp function, const Kernel &kernel, int64_t rows)
      : kernel(kernel), rows(rows), function(function),
        b(function.getLoc(), function.getContext()),
        f32(VectorType::get(kernel.lanes, b.getF32Type())) {}

  void build();

private:
  Value index(int64_t value) {
    return arith::ConstantIndexOp::create(b, value);
  }
  Value add(Value x, Value y) { return arith::AddIOp::create(b, x, y); }
  Value add(Value x, int64_t y) { return y == 0 ? x : add(x, index(y)); }
  Value mul(Value x, int64_t y) {
    return arith::MulIOp::create(b, x, index(y));
  }
  Value argument(Argument which) { return function.getArgument(which); }
  /// Returns the index of the first weight of step `k`.
  Value weightOffset(Value k) {
    return add(argument(Start), mul(k, kernel.getStep()));
  }
  /// Returns the number of cache lines of weights that `steps` steps read.
  int64_t linesOf(int64_t steps) {
    return std::max<int64_t>(1, kernel.bytesOf(steps * kernel.getStep()) /
                                    lineBytes);
  }

  SmallVector<Value> loadAccumulators();
  SmallVector<Value> loop(Value from, Value to, int64_t unroll, Prefetched what,
                          ValueRange accumulators);
  SmallVector<Value> unrolledLoop(Value to, ValueRange accumulators);
  SmallVector<Value> lastStep(ValueRange accumulators);
  void prefetch(Value offset, int64_t count);
  void step(Value k, bool whole, MutableArrayRef<Value> accumulators);
  Value broadcast(Value offset, bool whole);
  Value widen(Value vector);

  const Kernel &kernel;
  int64_t rows;
  func::FuncOp function;
  ImplicitLocOpBuilder b;
  VectorType f32;
  SmallVector<Value> firsts;
};
} // namespace

/// Initializes the accumulators: zero, or those of an earlier block of k.
SmallVector<Value> KernelBuilder::loadAccumulators() {
  Value resume = argument(Resume);
  SmallVector<Type> types(rows * kernel.vectors, f32);
  auto choice = scf::IfOp::create(b, types, resume, /*withElseRegion=*/true);
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(choice.thenBlock());
  SmallVector<Value> loaded;
  for (int64_t i = 0; i < rows * kernel.vectors; ++i)
    loaded.push_back(vector::LoadOp::create(
        b, f32, argument(Accumulators),
        add(argument(AccumulatorsStart), i * kernel.lanes)));
  scf::YieldOp::create(b, loaded);
  b.setInsertionPointToStart(choice.elseBlock());
  Value zero = arith::ConstantOp::create(b, b.getZeroAttr(f32));
  scf::YieldOp::create(b, SmallVector<Value>(types.size(), zero));
  return llvm::to_vector_of<Value>(choice.getResults());
}

/// Broadcasts the next element of a row of the left operand, or for dot
/// products the next pair.
Value KernelBuilder::broadcast(Value offset, bool whole) {
  Value lhs = argument(Lhs);
  if (kernel.depth == 1) {
    Value scalar = memref::LoadOp::create(b, lhs, offset);
    if (!kernel.element.isF32())
      scalar = arith::ExtFOp::create(b, b.getF32Type(), scalar);
    return vector::BroadcastOp::create(b, f32, scalar);
  }
  auto pair = VectorType::get(2, kernel.element);
  Value both;
  if (whole) {
    both = vector::LoadOp::create(b, pair, lhs, offset);
  } else {
    // The row ends with the first element of the pair.
    Value zero = arith::ConstantOp::create(b, b.getZeroAttr(kernel.element));
    Value last = memref::LoadOp::create(b, lhs, offset);
    both = vector::FromElementsOp::create(b, pair, ValueRange{last, zero});
  }
  Value bits =
      vector::BitCastOp::create(b, VectorType::get(1, b.getI32Type()), both);
  bits = vector::BroadcastOp::create(
      b, VectorType::get(kernel.lanes, b.getI32Type()), bits);
  return vector::BitCastOp::create(
      b, VectorType::get(2 * kernel.lanes, kernel.element), bits);
}

Value KernelBuilder::widen(Value vector) {
  return kernel.element.isF32() ? vector
                                : arith::ExtFOp::create(b, f32, vector);
}

/// Emits one step along k: every row times every vector of the panel.
void KernelBuilder::step(Value k, bool whole,
                         MutableArrayRef<Value> accumulators) {
  Value row = weightOffset(k);
  int64_t width = kernel.lanes * kernel.depth;
  auto packed = VectorType::get(width, kernel.element);
  SmallVector<Value> weights;
  for (int64_t j = 0; j < kernel.vectors; ++j) {
    Value loaded = vector::LoadOp::create(b, packed, argument(Weights),
                                          add(row, j * width));
    weights.push_back(kernel.depth == 1 ? widen(loaded) : loaded);
  }
  for (int64_t i = 0; i < rows; ++i) {
    Value offset = add(firsts[i], mul(k, kernel.depth));
    Value x = broadcast(offset, whole);
    for (int64_t j = 0; j < kernel.vectors; ++j) {
      Value &accumulator = accumulators[i * kernel.vectors + j];
      if (kernel.depth == 2)
        accumulator =
            x86vector::DotBF16Op::create(b, f32, accumulator, x, weights[j]);
      else
        accumulator = vector::FMAOp::create(b, x, weights[j], accumulator);
    }
  }
}

/// Prefetches `count` cache lines of weights from `offset` on.
void KernelBuilder::prefetch(Value offset, int64_t count) {
  for (int64_t i = 0; i < count; ++i)
    memref::PrefetchOp::create(b, argument(Weights),
                               add(offset, i * kernel.elementsIn(lineBytes)),
                               /*isWrite=*/false, /*localityHint=*/2,
                               /*isDataCache=*/true);
}

/// Emits a loop over [from, to) that is unrolled by `unroll`.
SmallVector<Value> KernelBuilder::loop(Value from, Value to, int64_t unroll,
                                       Prefetched what,
                                       ValueRange accumulators) {
  SmallVector<Value> inits(accumulators);
  if (what == Prefetched::Next)
    inits.push_back(argument(Ahead));
  auto loop = scf::ForOp::create(b, from, to, index(unroll), inits);
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(loop.getBody());
  SmallVector<Value> current(loop.getRegionIterArgs());
  Value ahead;
  if (what == Prefetched::Next) {
    ahead = current.pop_back_val();
    prefetch(ahead, linesOf(unroll) / 2);
  } else if (what == Prefetched::Own) {
    prefetchStream(b, kernel.prefetchedPages, argument(Weights),
                   argument(Start), /*end=*/argument(Ahead),
                   mul(loop.getInductionVar(), kernel.getStep()),
                   kernel.bytesOf(unroll * kernel.getStep()));
  }
  for (int64_t u = 0; u < unroll; ++u)
    step(add(loop.getInductionVar(), u), /*whole=*/true, current);
  if (ahead)
    current.push_back(add(ahead, argument(AheadStep)));
  scf::YieldOp::create(b, current);
  return llvm::to_vector_of<Value>(
      loop.getResults().take_front(accumulators.size()));
}

/// Emits the main loop over `to` steps, a multiple of the unroll factor.
SmallVector<Value> KernelBuilder::unrolledLoop(Value to,
                                               ValueRange accumulators) {
  auto build = [&](Prefetched what) {
    return loop(index(0), to, Kernel::unroll, what, accumulators);
  };
  bool hasStreams = kernel.prefetchedPages > 0;
  // A tile of one row is mostly alone in its part.
  if (rows == 1)
    return build(hasStreams ? Prefetched::Own : Prefetched::Nothing);
  SmallVector<int64_t> cases{0};
  if (hasStreams)
    cases.push_back(aheadIsEnd);
  auto choice = scf::IndexSwitchOp::create(
      b, TypeRange(accumulators), argument(AheadStep), cases, cases.size());
  OpBuilder::InsertionGuard guard(b);
  auto fill = [&](Region &region, Prefetched what) {
    b.createBlock(&region);
    scf::YieldOp::create(b, build(what));
  };
  fill(choice.getCaseRegions()[0], Prefetched::Nothing);
  if (hasStreams)
    fill(choice.getCaseRegions()[1], Prefetched::Own);
  fill(choice.getDefaultRegion(), Prefetched::Next);
  return llvm::to_vector_of<Value>(choice.getResults());
}

/// With a depth of two, a row may end with the first element of a pair.
SmallVector<Value> KernelBuilder::lastStep(ValueRange accumulators) {
  Value hasTail = arith::CmpIOp::create(b, arith::CmpIPredicate::ne,
                                        argument(Tail), index(0));
  auto tail = scf::IfOp::create(b, TypeRange(accumulators), hasTail,
                                /*withElseRegion=*/true);
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(tail.elseBlock());
  scf::YieldOp::create(b, accumulators);
  b.setInsertionPointToStart(tail.thenBlock());
  SmallVector<Value> current(accumulators);
  step(argument(Steps), /*whole=*/false, current);
  scf::YieldOp::create(b, current);
  return llvm::to_vector_of<Value>(tail.getResults());
}

void KernelBuilder::build() {
  b.setInsertionPointToStart(function.addEntryBlock());
  for (int64_t i = 0; i < rows; ++i)
    firsts.push_back(memref::LoadOp::create(b, argument(Firsts), index(i)));
  SmallVector<Value> accumulators = loadAccumulators();
  Value steps = argument(Steps);
  Value rest = arith::RemUIOp::create(b, steps, index(Kernel::unroll));
  Value unrolled = arith::SubIOp::create(b, steps, rest);
  accumulators = unrolledLoop(unrolled, accumulators);
  accumulators = loop(unrolled, steps, 1, Prefetched::Nothing, accumulators);
  if (kernel.depth > 1)
    accumulators = lastStep(accumulators);
  for (auto [i, accumulator] : llvm::enumerate(accumulators))
    vector::StoreOp::create(b, accumulator, argument(Accumulators),
                            add(argument(AccumulatorsStart), i * kernel.lanes));
  func::ReturnOp::create(b);
}

func::FuncOp mlir::moe::findOrCreateKernel(ModuleOp module, std::string name,
                                           Attribute key,
                                           ArrayRef<Type> arguments) {
  // Skip names of other functions and of kernels of other formats.
  for (;; name += '_') {
    Operation *existing = module.lookupSymbol(name);
    if (!existing)
      break;
    if (existing->getAttr("moe.kernel") == key)
      return cast<func::FuncOp>(existing);
  }
  OpBuilder b(module.getBodyRegion());
  auto function = func::FuncOp::create(b, module.getLoc(), name,
                                       b.getFunctionType(arguments, {}));
  function.setPrivate();
  function->setAttr("moe.kernel", key);
  // Inlining would only increase the register pressure of the loop.
  function->setAttr("passthrough", b.getStrArrayAttr({"noinline"}));
  return function;
}

func::FuncOp mlir::moe::getOrCreateKernel(ModuleOp module, const Kernel &kernel,
                                          int64_t rows) {
  std::string name;
  llvm::raw_string_ostream(name)
      << "moe_kernel_" << kernel.element << "_" << rows << "x" << kernel.vectors
      << "x" << kernel.lanes << (kernel.depth > 1 ? "_dot" : "");
  Builder b(module.getContext());
  auto buffer = [](Type element) {
    return MemRefType::get({ShapedType::kDynamic}, element);
  };
  Type elements = buffer(kernel.element), index = b.getIndexType();
  func::FuncOp function = findOrCreateKernel(
      module, name, b.getUnitAttr(),
      {elements, buffer(index), elements, index, buffer(b.getF32Type()), index,
       index, index, index, index, b.getI1Type()});
  if (function.empty())
    KernelBuilder(function, kernel, rows).build();
  return function;
}
