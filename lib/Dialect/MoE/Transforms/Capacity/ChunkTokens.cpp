//===- ChunkTokens.cpp - Run a call in chunks of tokens -------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Analysis/CapacityPlan.h"
#include "moe/Analysis/DefaultChunk.h"
#include "moe/Analysis/TokenIndependence.h"
#include "moe/Dialect/MoE/IR/MoEABI.h"
#include "moe/Dialect/MoE/Transforms/Capacity/Passes.h"

#include "mlir/Dialect/Bufferization/IR/Bufferization.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"

using namespace mlir;
using namespace mlir::moe;
using bufferization::MaterializeInDestinationOp;

namespace mlir::moe {
#define GEN_PASS_DEF_MOECHUNKTOKENS
#include "moe/Dialect/MoE/Transforms/Capacity/Passes.h.inc"
} // namespace mlir::moe

namespace {
/// Builds the loop over the chunks of one exported function.
class Chunker {
public:
  Chunker(func::FuncOp function, int64_t chunk)
      : function(function), chunk(chunk) {}

  LogicalResult run();
  /// True if no token depends on another.
  bool isIndependent();
  /// Sets `moe.independent_tokens` if no token depends on another.
  void markIndependence();

private:
  void findReports();
  void buildChunk(ImplicitLocOpBuilder &b, ArrayRef<Operation *> body,
                  scf::ForOp loop, Value tokens);

  func::FuncOp function;
  int64_t chunk;
  /// The writes of offsets and counters, which are totals of a call, and the
  /// operations that only contribute to them.
  SmallVector<MaterializeInDestinationOp> reports;
  llvm::DenseSet<Operation *> ofReports;
};
} // namespace

/// Finds the writes to arguments that the signature marks as reports.
void Chunker::findReports() {
  SignatureAttr signature = getSignature(function);
  auto isReport = [&](Value destination) {
    auto argument = dyn_cast<BlockArgument>(destination);
    ArgumentAttr described =
        argument ? signature.getArgument(argument.getArgNumber())
                 : ArgumentAttr();
    return described && described.isReport();
  };
  SmallVector<Operation *> pending;
  for (auto write : function.getOps<MaterializeInDestinationOp>())
    if (isReport(write.getDest())) {
      reports.push_back(write);
      ofReports.insert(write);
      pending.push_back(write);
    }
  while (!pending.empty())
    for (Value operand : pending.pop_back_val()->getOperands()) {
      Operation *maker = operand.getDefiningOp();
      if (!maker || isa<DispatchOp>(maker) || ofReports.contains(maker) ||
          !llvm::all_of(maker->getUsers(), [&](Operation *user) {
            return ofReports.contains(user);
          }))
        continue;
      ofReports.insert(maker);
      pending.push_back(maker);
    }
}

/// Returns operands of a slice: `first` for the first dimension, `ofOthers` for
/// all others, or their extents if it is negative.
static SmallVector<OpFoldResult> slice(ShapedType type, OpFoldResult first,
                                       int64_t ofOthers) {
  Builder b(type.getContext());
  SmallVector<OpFoldResult> operands{first};
  for (int64_t extent : type.getShape().drop_front())
    operands.push_back(b.getIndexAttr(ofOthers < 0 ? extent : ofOthers));
  return operands;
}

/// Clones the body of the function for the chunk that starts at the induction
/// variable.
void Chunker::buildChunk(ImplicitLocOpBuilder &b, ArrayRef<Operation *> body,
                         scf::ForOp loop, Value tokens) {
  Value start = loop.getInductionVar();
  Value left = arith::SubIOp::create(b, tokens, start);
  // Bounds the buffers of a chunk by min(T, chunk), as `left` has no bound.
  Value most = arith::MinSIOp::create(b, tokens,
                                      arith::ConstantIndexOp::create(b, chunk));
  Value size = arith::MinSIOp::create(b, most, left);
  constexpr int64_t whole = -1;
  IRMapping mapping;
  for (BlockArgument argument : function.getArguments()) {
    auto type = dyn_cast<ShapedType>(argument.getType());
    if (!type || type.hasStaticShape())
      continue;
    SmallVector<OpFoldResult> offsets = slice(type, start, 0);
    SmallVector<OpFoldResult> sizes = slice(type, size, whole);
    SmallVector<OpFoldResult> strides = slice(type, b.getIndexAttr(1), 1);
    Value its;
    if (isa<MemRefType>(type))
      its = memref::SubViewOp::create(b, argument, offsets, sizes, strides);
    else
      its =
          tensor::ExtractSliceOp::create(b, argument, offsets, sizes, strides);
    mapping.map(argument, its);
  }
  for (Operation *op : body)
    if (!llvm::is_contained(reports, op))
      b.clone(*op, mapping);
  SmallVector<Value> sums;
  for (auto [report, sum] : llvm::zip(reports, loop.getRegionIterArgs())) {
    Value part = mapping.lookupOrDefault(report.getSource());
    sums.push_back(
        linalg::AddOp::create(b, ValueRange{sum, part}, ValueRange{sum})
            .getResult(0));
  }
  scf::YieldOp::create(b, sums);
}

bool Chunker::isIndependent() {
  findReports();
  return !findTokenDependence(function, ofReports);
}

void Chunker::markIndependence() {
  if (isIndependent())
    function->setAttr(independentTokensAttrName,
                      UnitAttr::get(function.getContext()));
}

LogicalResult Chunker::run() {
  findReports();
  if (std::optional<TokenDependence> found =
          findTokenDependence(function, ofReports)) {
    InFlightDiagnostic diag = function.emitError(
        "expected tokens that do not depend on one another, to run them in "
        "chunks");
    diag.attachNote(found->op->getLoc()) << found->reason;
    return diag;
  }
  // An argument with a row for each token exists: see `takesTokens`.
  auto first = llvm::find_if(function.getArguments(), [](BlockArgument each) {
    auto type = dyn_cast<RankedTensorType>(each.getType());
    return type && !type.hasStaticShape();
  });
  Block &body = function.getBody().front();
  SmallVector<Operation *> old = llvm::map_to_vector(
      body.without_terminator(), [](Operation &op) { return &op; });
  ImplicitLocOpBuilder b(function.getLoc(), body.getTerminator());
  Value zero = arith::ConstantIndexOp::create(b, 0);
  Value step = arith::ConstantIndexOp::create(b, chunk);
  Value tokens = tensor::DimOp::create(b, *first, zero);
  SmallVector<Value> sums;
  for (MaterializeInDestinationOp report : reports) {
    auto type = cast<RankedTensorType>(report.getSource().getType());
    sums.push_back(arith::ConstantOp::create(b, b.getZeroAttr(type)));
  }
  auto loop = scf::ForOp::create(b, zero, tokens, step, sums);
  for (auto [report, sum] : llvm::zip(reports, loop.getResults()))
    MaterializeInDestinationOp::create(b, Type(), sum, report.getDest(),
                                       /*restrict=*/true, /*writable=*/true);
  if (reports.empty())
    loop.getBody()->getTerminator()->erase();
  ImplicitLocOpBuilder inner(function.getLoc(), function.getContext());
  inner.setInsertionPointToEnd(loop.getBody());
  buildChunk(inner, old, loop, tokens);
  for (Operation *op : llvm::reverse(old))
    op->erase();
  return success();
}

/// Returns an operation on buffers, other than one that writes a result; null
/// in a function as `moe-export` leaves it.
static Operation *findWorkOnBuffers(func::FuncOp function) {
  Operation *found = nullptr;
  function.walk([&](Operation *op) {
    auto isBuffer = llvm::IsaPred<BaseMemRefType>;
    if (op == function || isa<MaterializeInDestinationOp>(op) ||
        !(llvm::any_of(op->getOperandTypes(), isBuffer) ||
          llvm::any_of(op->getResultTypes(), isBuffer)))
      return WalkResult::advance();
    found = op;
    return WalkResult::interrupt();
  });
  return found;
}

/// True if an input has a row for each token.
static bool takesTokens(func::FuncOp function) {
  return llvm::any_of(function.getArgumentTypes(), [](Type type) {
    auto tensor = dyn_cast<RankedTensorType>(type);
    return tensor && !tensor.hasStaticShape();
  });
}

namespace {
struct MoEChunkTokens : moe::impl::MoEChunkTokensBase<MoEChunkTokens> {
  using MoEChunkTokensBase::MoEChunkTokensBase;

  /// Returns the default chunk of a function; 0 if its calls run whole.
  static int64_t chooseChunk(func::FuncOp function) {
    FailureOr<std::pair<int64_t, int64_t>> range = tokenRange(function);
    if (failed(range))
      return 0;
    int64_t chunk = getDefaultChunk(function, range->second);
    return chunk > 0 && Chunker(function, chunk).isIndependent() ? chunk : 0;
  }

  void runOnOperation() override {
    for (auto function : getOperation().getOps<func::FuncOp>()) {
      if (!isExported(function) || function.isExternal())
        continue;
      auto plan = function->getAttrOfType<PlanAttr>(planAttrName);
      int64_t tokens = chunk > 0 ? int64_t(chunk) : plan ? plan.getChunk() : 0;
      if (Operation *op = findWorkOnBuffers(function)) {
        if (tokens <= 0)
          continue;
        InFlightDiagnostic diag =
            function.emitError("expected a function on tensors, as moe-export "
                               "leaves it, to run it "
                               "in chunks of tokens");
        diag.attachNote(op->getLoc()) << "this is on buffers";
        return signalPassFailure();
      }
      if (tokens <= 0 && defaultChunk)
        tokens = chooseChunk(function);
      Chunker chunker(function, tokens);
      if (tokens <= 0)
        chunker.markIndependence();
      else if (takesTokens(function) && failed(chunker.run()))
        return signalPassFailure();
    }
  }
};
} // namespace
