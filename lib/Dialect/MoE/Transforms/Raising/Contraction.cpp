//===- Contraction.cpp - Products of tensors -----------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Contraction.h"
#include "Foreign.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/IR/Matchers.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

using Dims = SmallVector<int64_t>;

static std::optional<Contraction> readDotGeneral(Operation *op) {
  if (op->getNumOperands() != 2 || op->getNumResults() != 1)
    return std::nullopt;
  Contraction found{op->getOperand(0), op->getOperand(1), {}, {}, {}};
  auto left = dyn_cast<RankedTensorType>(found.lhs.getType()),
       right = dyn_cast<RankedTensorType>(found.rhs.getType()),
       result = dyn_cast<RankedTensorType>(op->getResult(0).getType());
  std::string text = textOf(op, "dot_dimension_numbers");
  auto lhsBatching = integersIn(text, "lhs_batching_dimensions"),
       rhsBatching = integersIn(text, "rhs_batching_dimensions"),
       lhsContracting = integersIn(text, "lhs_contracting_dimensions"),
       rhsContracting = integersIn(text, "rhs_contracting_dimensions");
  if (!left || !right || !result || !lhsBatching || !rhsBatching ||
      !lhsContracting || !rhsContracting ||
      lhsBatching->size() != rhsBatching->size() ||
      lhsContracting->size() != rhsContracting->size())
    return std::nullopt;
  constexpr unsigned none = ~0u;
  found.lhsLoops.assign(left.getRank(), none);
  found.rhsLoops.assign(right.getRank(), none);
  unsigned loops = 0;
  bool isValid = true;
  auto bind = [&](const Dims &lhs, const Dims &rhs) {
    for (auto [a, b] : llvm::zip_equal(lhs, rhs)) {
      if (a < 0 || b < 0 || a >= left.getRank() || b >= right.getRank() ||
          found.lhsLoops[a] != none || found.rhsLoops[b] != none) {
        isValid = false;
        return;
      }
      found.lhsLoops[a] = found.rhsLoops[b] = loops++;
    }
  };
  bind(*lhsBatching, *rhsBatching);
  unsigned batches = loops;
  if (isValid)
    bind(*lhsContracting, *rhsContracting);
  if (!isValid)
    return std::nullopt;
  found.outLoops = llvm::to_vector(llvm::seq<unsigned>(0, batches));
  for (SmallVector<unsigned> *operand : {&found.lhsLoops, &found.rhsLoops})
    for (unsigned &loop : *operand)
      if (loop == none)
        found.outLoops.push_back(loop = loops++);
  return int64_t(found.outLoops.size()) == result.getRank()
             ? std::optional(found)
             : std::nullopt;
}

/// Returns the dimensions of a projected permutation.
static std::optional<SmallVector<unsigned>> dimsOf(AffineMap map) {
  SmallVector<unsigned> dims;
  if (!map.isProjectedPermutation())
    return std::nullopt;
  for (AffineExpr expr : map.getResults())
    dims.push_back(cast<AffineDimExpr>(expr).getPosition());
  return dims;
}

static std::optional<Contraction> readLinalg(linalg::LinalgOp op) {
  if (!op.hasPureTensorSemantics() || op.getNumDpsInputs() != 2 ||
      op.getNumDpsInits() != 1 || !linalg::isaContractionOpInterface(op))
    return std::nullopt;
  auto fill = op.getDpsInits()[0].getDefiningOp<linalg::FillOp>();
  if (!fill || !matchPattern(fill.getInputs()[0], m_AnyZeroFloat()))
    return std::nullopt;
  SmallVector<AffineMap> maps = op.getIndexingMapsArray();
  auto lhs = dimsOf(maps[0]), rhs = dimsOf(maps[1]), out = dimsOf(maps[2]);
  if (!lhs || !rhs || !out)
    return std::nullopt;
  return Contraction{op.getDpsInputs()[0], op.getDpsInputs()[1], *lhs, *rhs,
                     *out};
}

std::optional<Contraction> mlir::moe::raising::readContraction(Operation *op) {
  if (isNamed(op, "stablehlo.dot_general"))
    return readDotGeneral(op);
  auto linalgOp = dyn_cast<linalg::LinalgOp>(op);
  return linalgOp ? readLinalg(linalgOp) : std::nullopt;
}
