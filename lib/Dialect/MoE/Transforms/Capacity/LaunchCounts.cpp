//===- LaunchCounts.cpp - What a launch does for T tokens -----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "LaunchCounts.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Utils/StaticValueUtils.h"
#include "mlir/IR/Matchers.h"

using namespace mlir;
using namespace mlir::moe;

//===----------------------------------------------------------------------===//
// Extents
//===----------------------------------------------------------------------===//

void BufferExtents::set(Value integer, int64_t value) {
  known[integer] = value;
}

std::optional<int64_t> BufferExtents::evaluate(Value integer) {
  if (auto found = known.find(integer); found != known.end())
    return found->second;
  std::optional<int64_t> value = compute(integer);
  known[integer] = value;
  return value;
}

std::optional<int64_t> BufferExtents::compute(Value integer) {
  Operation *op = integer.getDefiningOp();
  if (!op || !integer.getType().isIntOrIndex())
    return std::nullopt;
  if (isa<moe_rt::MultiprocessorsOp>(op))
    return multiprocessors;
  if (auto dim = dyn_cast<memref::DimOp>(op)) {
    std::optional<int64_t> number = dim.getConstantIndex();
    return number ? extent(dim.getSource(), *number) : std::nullopt;
  }
  Attribute result;
  if (matchPattern(integer, m_Constant(&result))) {
    auto constant = dyn_cast<IntegerAttr>(result);
    return constant ? std::optional(constant.getInt()) : std::nullopt;
  }
  if (op->getNumRegions() != 0 || op->getNumResults() != 1)
    return std::nullopt;
  SmallVector<Attribute> operands;
  for (Value operand : op->getOperands()) {
    std::optional<int64_t> value = evaluate(operand);
    if (!value)
      return std::nullopt;
    operands.push_back(IntegerAttr::get(operand.getType(), *value));
  }
  SmallVector<OpFoldResult> folded;
  if (failed(op->fold(operands, folded)) || folded.size() != 1)
    return std::nullopt;
  if (auto value = dyn_cast<Value>(folded[0]))
    return value == integer ? std::nullopt : evaluate(value);
  auto constant = dyn_cast<IntegerAttr>(cast<Attribute>(folded[0]));
  return constant ? std::optional(constant.getInt()) : std::nullopt;
}

std::optional<int64_t> BufferExtents::extent(Value buffer, int64_t dim) {
  auto type = cast<MemRefType>(buffer.getType());
  if (!type.isDynamicDim(dim))
    return type.getDimSize(dim);
  Operation *op = buffer.getDefiningOp();
  if (!op) {
    Operation *parent = cast<BlockArgument>(buffer).getOwner()->getParentOp();
    return isa<func::FuncOp>(parent) ? std::optional(tokens) : std::nullopt;
  }
  unsigned index = type.getDynamicDimIndex(dim);
  if (auto view = dyn_cast<memref::ViewOp>(op))
    return evaluate(view.getSizes()[index]);
  if (auto alloc = dyn_cast<memref::AllocOp>(op))
    return evaluate(alloc.getDynamicSizes()[index]);
  if (auto cast = dyn_cast<memref::CastOp>(op))
    return extent(cast.getSource(), dim);
  if (auto collapse = dyn_cast<memref::CollapseShapeOp>(op)) {
    int64_t product = 1;
    for (int64_t from : collapse.getReassociationIndices()[dim]) {
      std::optional<int64_t> size = extent(collapse.getSrc(), from);
      if (!size)
        return std::nullopt;
      product *= *size;
    }
    return product;
  }
  auto sizeOf = [&](OpFoldResult size) {
    std::optional<int64_t> constant = getConstantIntValue(size);
    return constant ? constant : evaluate(cast<Value>(size));
  };
  if (auto expand = dyn_cast<memref::ExpandShapeOp>(op))
    return sizeOf(expand.getMixedOutputShape()[dim]);
  if (auto subview = dyn_cast<memref::SubViewOp>(op))
    if (subview.getSourceType().getRank() == type.getRank())
      return sizeOf(subview.getMixedSizes()[dim]);
  return std::nullopt;
}

//===----------------------------------------------------------------------===//
// Loops
//===----------------------------------------------------------------------===//

namespace {
/// What a block does each time, of all threads together.
struct Counts {
  double instructions = 0, chain = 0;
  llvm::SmallDenseMap<Value, double> read, written; // bytes, by buffer

  void add(const Counts &other, double times) {
    instructions += times * other.instructions;
    chain += times * other.chain;
    for (auto [buffer, bytes] : other.read)
      read[buffer] += times * bytes;
    for (auto [buffer, bytes] : other.written)
      written[buffer] += times * bytes;
  }
  /// Takes the larger number of each kind.
  void join(const Counts &other) {
    instructions = std::max(instructions, other.instructions);
    chain = std::max(chain, other.chain);
    for (auto [buffer, bytes] : other.read)
      read[buffer] = std::max(read[buffer], bytes);
    for (auto [buffer, bytes] : other.written)
      written[buffer] = std::max(written[buffer], bytes);
  }
};

class LoopCounter {
public:
  explicit LoopCounter(BufferExtents &extents) : extents(extents) {}
  std::optional<Counts> count(Block &block);
  /// The iterations of all threads together.
  double iterations = 0;

private:
  std::optional<int64_t> most(Value bound);
  void keepSums(scf::ForOp loop, Counts &counts);
  bool addLoop(scf::ForOp loop, Counts &counts);
  bool add(Operation &op, Counts &counts);

  BufferExtents &extents;
  llvm::SmallPtrSet<Operation *, 4> kept; // loads that are counted already
};
} // namespace

static double bytesOf(Type element) {
  return double(llvm::divideCeil(element.getIntOrFloatBitWidth(), 8));
}

/// Instructions of an operation in machine code, about.
static double instructionsOf(Operation &op) {
  // Indices have 64 bits: without an instruction, as functions have none.
  if (isa<arith::DivUIOp, arith::RemUIOp, arith::DivSIOp, arith::RemSIOp>(op))
    return 70;
  if (isa<arith::DivFOp>(op))
    return 12;
  if (isa<math::MathDialect>(op.getDialect()) &&
      !isa<math::AbsFOp, math::FmaOp>(op))
    return 20;
  // Part of the instruction that uses it.
  if (isa<arith::IndexCastOp, arith::ConstantOp, arith::NegFOp>(op) ||
      op.hasTrait<OpTrait::IsTerminator>())
    return 0;
  return isa<memref::LoadOp, memref::StoreOp>(op) ? 3 : 1;
}

/// The largest number that a bound can be.
std::optional<int64_t> LoopCounter::most(Value bound) {
  if (std::optional<int64_t> value = extents.evaluate(bound))
    return value;
  if (auto choice = bound.getDefiningOp<arith::SelectOp>()) {
    auto first = most(choice.getTrueValue()),
         second = most(choice.getFalseValue());
    if (first && second)
      return std::max(*first, *second);
  }
  return std::nullopt;
}

/// Counts loads of sums that a loop stores to where they are, once: a register
/// has them from then on.
void LoopCounter::keepSums(scf::ForOp loop, Counts &counts) {
  auto loads = loop.getBody()->getOps<memref::LoadOp>();
  auto stores = loop.getBody()->getOps<memref::StoreOp>();
  for (memref::LoadOp load : loads) {
    bool isSum = llvm::all_of(load.getIndices(),
                              [&](Value index) {
                                return loop.isDefinedOutsideOfLoop(index);
                              }) &&
                 llvm::any_of(stores, [&](memref::StoreOp store) {
                   return store.getMemRef() == load.getMemRef() &&
                          llvm::equal(store.getIndices(), load.getIndices());
                 });
    if (!isSum)
      continue;
    kept.insert(load);
    counts.read[load.getMemRef()] += bytesOf(load.getType());
  }
}

bool LoopCounter::addLoop(scf::ForOp loop, Counts &counts) {
  std::optional<int64_t> upper = most(loop.getUpperBound());
  std::optional<int64_t> lower = extents.evaluate(loop.getLowerBound());
  std::optional<int64_t> step = extents.evaluate(loop.getStep());
  // The loop over the iterations of the kernel starts at that of a thread.
  bool isOfThreads = !lower && !step && iterations == 0;
  if (!upper || (!isOfThreads && (!lower || !step || *step <= 0)))
    return false;
  double trips = double(*upper);
  if (isOfThreads)
    iterations = trips;
  else
    trips = double(
        llvm::divideCeilSigned(std::max<int64_t>(*upper - *lower, 0), *step));
  if (!isOfThreads)
    keepSums(loop, counts);
  std::optional<Counts> body = count(*loop.getBody());
  if (!body)
    return false;
  body->instructions += isOfThreads ? 4 : 2; // step and branch
  // Other sums in memory wait for what the step before has stored.
  if (!isOfThreads)
    for (auto [buffer, bytes] : body->written)
      if (bytes > 0 && body->read.contains(buffer))
        body->chain = std::max(body->chain, 1.0);
  counts.add(*body, trips);
  return true;
}

bool LoopCounter::add(Operation &op, Counts &counts) {
  if (auto loop = dyn_cast<scf::ForOp>(op))
    return addLoop(loop, counts);
  if (auto branch = dyn_cast<scf::IfOp>(op)) {
    std::optional<Counts> its = count(*branch.thenBlock());
    if (its && branch.elseBlock()) {
      std::optional<Counts> other = count(*branch.elseBlock());
      if (!other)
        return false;
      its->join(*other);
    }
    if (!its)
      return false;
    counts.instructions += 2;
    counts.add(*its, 1);
    return true;
  }
  if (op.getNumRegions() != 0)
    return false;
  if (auto load = dyn_cast<memref::LoadOp>(op); load && !kept.contains(load))
    counts.read[load.getMemRef()] += bytesOf(load.getType());
  if (auto store = dyn_cast<memref::StoreOp>(op))
    counts.written[store.getMemRef()] += bytesOf(store.getValue().getType());
  counts.instructions += instructionsOf(op);
  return true;
}

std::optional<Counts> LoopCounter::count(Block &block) {
  Counts counts;
  for (Operation &op : block)
    if (!add(op, counts))
      return std::nullopt;
  return counts;
}

std::optional<LoopWork> mlir::moe::countLoop(moe_rt::LaunchOp launch,
                                             gpu::GPUFuncOp kernel,
                                             BufferExtents &extents) {
  SmallVector<Value> passed(launch.getInputs());
  llvm::append_range(passed, launch.getInits());
  llvm::append_range(passed, launch.getScalars());
  if (passed.size() != kernel.getNumArguments())
    return std::nullopt;
  llvm::DenseMap<Value, double> sizes;
  for (auto [value, argument] : llvm::zip(passed, kernel.getArguments())) {
    if (argument.getType().isIntOrIndex()) {
      std::optional<int64_t> number = extents.evaluate(value);
      if (number)
        extents.set(argument, *number);
      continue;
    }
    auto type = dyn_cast<MemRefType>(value.getType());
    if (!type)
      continue;
    double elements = 1;
    for (int64_t dim = 0; dim < type.getRank(); ++dim) {
      std::optional<int64_t> extent = extents.extent(value, dim);
      if (!extent)
        return std::nullopt;
      elements *= double(*extent);
    }
    sizes[argument] =
        elements * double(llvm::divideCeil(type.getElementTypeBitWidth(), 8));
  }
  LoopCounter counter(extents);
  std::optional<Counts> counts = counter.count(kernel.getBody().front());
  if (!counts)
    return std::nullopt;
  LoopWork work;
  work.iterations = std::max(counter.iterations, 1.0);
  work.instructions = counts->instructions;
  work.chain = counts->chain / work.iterations;
  auto add = [&](const llvm::SmallDenseMap<Value, double> &bytes,
                 double &total) {
    for (auto [buffer, count] : bytes) {
      total += count;
      auto size = sizes.find(buffer);
      // What is read again is in a cache.
      work.memoryBytes +=
          size == sizes.end() ? count : std::min(count, size->second);
    }
  };
  add(counts->read, work.readBytes);
  add(counts->written, work.writtenBytes);
  return work;
}
