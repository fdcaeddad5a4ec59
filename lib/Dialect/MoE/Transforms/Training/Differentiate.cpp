//===- Differentiate.cpp - Backward functions -----------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Dialect/MoE/Transforms/Training/Passes.h"

#include "Gradients.h"
#include "moe/Dialect/MoE/IR/MoEABI.h"
#include "moe/Dialect/MoE/Transforms/Parallel/ExchangeUtils.h"

#include "mlir/Dialect/Linalg/Transforms/Transforms.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/MemRef/Transforms/Transforms.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Transforms/GreedyPatternRewriteDriver.h"
#include "mlir/Transforms/RegionUtils.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_MOEDIFFERENTIATE
#include "moe/Dialect/MoE/Transforms/Training/Passes.h.inc"
} // namespace mlir::moe

/// The name of an argument, as in the signature of an exported function.
static std::string nameOf(func::FuncOp function, unsigned index) {
  if (auto name = function.getArgAttrOfType<StringAttr>(index, "moe.name"))
    return name.str();
  return "arg" + std::to_string(index);
}

/// True if the experts of a function are on many ranks: what it saves may have
/// rows of other ranks, and stays where it is computed.
static bool isSpread(func::FuncOp function) {
  return function.walk([](ExchangeOp) { return WalkResult::interrupt(); })
      .wasInterrupted();
}

static std::string nameOfResult(func::FuncOp function, unsigned index) {
  if (auto name = function.getResultAttrOfType<StringAttr>(index, "moe.name"))
    return name.str();
  return "result" + std::to_string(index);
}

/// Generalises named operations, and computes extents from those of operands
/// rather than of results that a backward function does not have.
static void prepare(func::FuncOp function) {
  IRRewriter rewriter(function.getContext());
  SmallVector<linalg::LinalgOp> named;
  function.walk([&](linalg::LinalgOp op) {
    if (!isa<linalg::GenericOp, linalg::FillOp>(op) &&
        op.hasPureTensorSemantics())
      named.push_back(op);
  });
  for (linalg::LinalgOp op : named) {
    rewriter.setInsertionPoint(op);
    (void)linalg::generalizeNamedOp(rewriter, op);
  }
  RewritePatternSet patterns(function.getContext());
  memref::populateResolveRankedShapedTypeResultDimsPatterns(patterns);
  (void)applyPatternsGreedily(function, std::move(patterns));
}

/// Applies the rule of an operation whose result has a gradient.
static LogicalResult differentiateOp(Operation *op, Gradients &g) {
  g.b.setLoc(op->getLoc());
  return llvm::TypeSwitch<Operation *, LogicalResult>(op)
      .Case<AllGatherOp, AuxiliaryLossOp, GateOp, DispatchOp, GatherSumOp,
            GroupedMatmulOp, OwnRowsOp, linalg::GenericOp>(
          [&](auto each) { return differentiate(each, g); })
      .Case<CombineOp>([](Operation *op) {
        return LogicalResult(
            op->emitOpError("has no gradient; run moe-fuse first"));
      })
      .Case<ExpertOp>([](Operation *op) {
        return LogicalResult(op->emitOpError(
            "has no gradient: its region is not made of matmuls and "
            "elementwise operations, or moe-fuse did not run"));
      })
      .Case<ExchangeOp>([](Operation *op) {
        return LogicalResult(
            op->emitOpError("has no gradient: its rows do not come home by a "
                            "moe.collect to a moe.gather_sum"));
      })
      .Case<linalg::FillOp>([](linalg::FillOp op) {
        return LogicalResult(op.emitOpError("has no gradient"));
      })
      .Default([&](Operation *op) { return differentiateTensorOp(op, g); });
}

namespace {
/// Builds the backward function of one function.
class BackwardBuilder {
public:
  BackwardBuilder(func::FuncOp forward, bool recomputes)
      : forward(forward), recomputes(recomputes) {}

  /// Differentiates by these arguments. Of those, gradients of `inF32` are f32,
  /// and gradients of `accumulated` are added to what their result has.
  LogicalResult run(ArrayRef<unsigned> arguments, ArrayRef<unsigned> inF32,
                    ArrayRef<unsigned> accumulated);

private:
  LogicalResult create();
  LogicalResult propagate(Gradients &g);
  DictionaryAttr describeSaved(size_t index, bool isResult);
  void finishForward(Gradients &g);
  void finishBackward(Gradients &g);

  func::FuncOp forward, backward;
  bool recomputes;
  SmallVector<unsigned> differentiated, accumulated; // arguments
  SmallVector<std::pair<Value, Value>> seeds; // results and their gradients
};
} // namespace

LogicalResult BackwardBuilder::create() {
  auto terminator = forward.getBody().front().getTerminator();
  auto returnOp = dyn_cast<func::ReturnOp>(terminator);
  if (!forward.getBody().hasOneBlock() || !returnOp)
    return forward.emitError("expected a function of one block");
  if (auto parallel = forward->getAttrOfType<ParallelAttr>(parallelAttrName);
      parallel && parallel.getReduce() == RankReduction::PerRank)
    return forward.emitError("expected reduce = ordered in ")
           << parallelAttrName
           << " to differentiate a function over ranks, got per_rank";
  std::string name = (forward.getName() + "_backward").str();
  auto module = forward->getParentOfType<ModuleOp>();
  if (Operation *existing = module.lookupSymbol(name))
    return existing->emitError("expected no function of this name, which the "
                               "backward function of '")
           << forward.getName() << "' gets";

  OpBuilder b(forward);
  b.setInsertionPointAfter(forward);
  backward =
      func::FuncOp::create(b, forward.getLoc(), name,
                           b.getFunctionType(forward.getArgumentTypes(), {}));
  for (StringRef attribute : {tokensAttrName, parallelAttrName})
    if (Attribute value = forward->getAttr(attribute))
      backward->setAttr(attribute, value);
  if (isSpread(forward))
    backward->setAttr(forwardAttrName,
                      FlatSymbolRefAttr::get(forward.getSymNameAttr()));
  Block *body = backward.addEntryBlock();
  for (unsigned i = 0; i < forward.getNumArguments(); ++i) {
    if (DictionaryAttr attributes = forward.getArgAttrDict(i))
      backward.setArgAttrs(i, attributes);
    backward.setArgAttr(i, "moe.name", b.getStringAttr(nameOf(forward, i)));
  }
  for (auto [index, value] : llvm::enumerate(returnOp.getOperands()))
    if (isFloatTensor(value.getType()))
      seeds.push_back(
          {value, body->addArgument(value.getType(), forward.getLoc())});
  if (seeds.empty())
    return forward.emitError("expected a result of floats");
  return success();
}

LogicalResult BackwardBuilder::propagate(Gradients &g) {
  for (unsigned index : differentiated)
    g.activate(forward.getArgument(index));
  for (auto [result, gradient] : seeds)
    g.add(result, gradient);
  Block &body = forward.getBody().front();
  SmallVector<Operation *> ops;
  for (Operation &op : body.without_terminator())
    ops.push_back(&op);
  for (Operation *op : llvm::reverse(ops))
    if (!g.isDone(op) && g.isReached(op) && failed(differentiateOp(op, g)))
      return failure();
  return success();
}

/// Returns the attributes of a saved tensor: a result of the forward function,
/// or an argument of the backward function, to which it is an input like others
/// unless it stays where it is.
DictionaryAttr BackwardBuilder::describeSaved(size_t index, bool isResult) {
  Builder b(forward.getContext());
  SmallVector<NamedAttribute> attributes{
      b.getNamedAttr("moe.name", b.getStringAttr("saved" + Twine(index)))};
  if (isResult || backward->hasAttr(forwardAttrName))
    attributes.push_back(
        b.getNamedAttr("moe.role", b.getStringAttr(savedRole)));
  return b.getDictionaryAttr(attributes);
}

/// Returns the saved tensors after the results.
void BackwardBuilder::finishForward(Gradients &g) {
  auto returnOp =
      cast<func::ReturnOp>(forward.getBody().front().getTerminator());
  Builder b(forward.getContext());
  SmallVector<Attribute> attributes;
  for (unsigned i = 0; i < forward.getNumResults(); ++i) {
    DictionaryAttr existing = forward.getResultAttrDict(i);
    attributes.push_back(existing ? existing : b.getDictionaryAttr({}));
  }
  for (auto [i, value] : llvm::enumerate(g.getSaved())) {
    returnOp.getOperandsMutable().append(value);
    attributes.push_back(describeSaved(i, /*isResult=*/true));
  }
  forward.setType(b.getFunctionType(forward.getArgumentTypes(),
                                    returnOp.getOperandTypes()));
  forward.setResAttrsAttr(b.getArrayAttr(attributes));
}

/// Returns the gradients, and erases the arguments that are not needed.
void BackwardBuilder::finishBackward(Gradients &g) {
  SmallVector<Value> results;
  SmallVector<Attribute> names, sums;
  Builder &b = g.b;
  Block &body = backward.getBody().front();
  for (unsigned index : differentiated) {
    Value argument = forward.getArgument(index);
    Value gradient = g.of(argument);
    if (!gradient)
      gradient = g.castTo(
          g.zeros(g.sizes(backward.getArgument(index)), g.elementOf(argument)),
          cast<RankedTensorType>(argument.getType())
              .clone(g.elementOf(argument)));
    StringAttr text = b.getStringAttr(nameOf(forward, index) + "_gradient");
    if (llvm::is_contained(accumulated, index)) {
      Value before = body.addArgument(gradient.getType(), argument.getLoc());
      gradient = addTo(g.b, gradient, before);
      sums.push_back(b.getDictionaryAttr(
          {b.getNamedAttr("moe.name",
                          b.getStringAttr(text.getValue() + "_sum")),
           b.getNamedAttr(accumulatesAttrName, text)}));
    }
    results.push_back(gradient);
    names.push_back(b.getDictionaryAttr(b.getNamedAttr("moe.name", text)));
  }
  func::ReturnOp::create(g.b, results);

  SmallVector<Attribute> attributes;
  for (unsigned i = 0; i < forward.getNumArguments(); ++i)
    attributes.push_back(backward.getArgAttrDict(i));
  unsigned result = 0;
  for (auto [index, value] : llvm::enumerate(
           cast<func::ReturnOp>(forward.getBody().front().getTerminator())
               .getOperands())) {
    if (!isFloatTensor(value.getType()) || result == seeds.size())
      continue;
    auto name = b.getNamedAttr(
        "moe.name",
        b.getStringAttr(nameOfResult(forward, index) + "_gradient"));
    attributes.push_back(b.getDictionaryAttr(name));
    ++result;
  }
  for (size_t i = 0; i < g.getSaved().size(); ++i)
    attributes.push_back(describeSaved(i, /*isResult=*/false));
  llvm::append_range(attributes, sums);
  backward.setType(b.getFunctionType(body.getArgumentTypes(),
                                     ValueRange(results).getTypes()));
  backward.setArgAttrsAttr(b.getArrayAttr(attributes));
  backward.setResAttrsAttr(b.getArrayAttr(names));
}

LogicalResult BackwardBuilder::run(ArrayRef<unsigned> arguments,
                                   ArrayRef<unsigned> inF32,
                                   ArrayRef<unsigned> accumulated) {
  differentiated.assign(arguments.begin(), arguments.end());
  this->accumulated.assign(accumulated.begin(), accumulated.end());
  prepare(forward);
  if (failed(create()))
    return failure();
  Gradients g(forward, backward, recomputes);
  for (unsigned index : inF32)
    g.setF32(forward.getArgument(index));
  if (failed(propagate(g)))
    return failure();
  finishBackward(g);
  finishForward(g);

  // What nothing needs: operations that were replaced by ones that save their
  // accumulators, and arguments.
  IRRewriter rewriter(forward.getContext());
  g.replaceWidened(rewriter);
  (void)runRegionDCE(rewriter, backward->getRegions());
  for (unsigned i = forward.getNumArguments(); i-- > 0;)
    if (backward.getArgument(i).use_empty())
      (void)backward.eraseArgument(i);
  return success();
}

namespace {
struct MoEDifferentiate : moe::impl::MoEDifferentiateBase<MoEDifferentiate> {
  using MoEDifferentiateBase::MoEDifferentiateBase;

  void runOnOperation() override {
    SmallVector<func::FuncOp> functions;
    for (auto function : getOperation().getOps<func::FuncOp>())
      if (function.isPublic() && !function.isExternal() && isLayer(function))
        functions.push_back(function);
    for (func::FuncOp function : functions) {
      FailureOr<SmallVector<unsigned>> chosen = argumentsOf(function);
      if (failed(chosen))
        return signalPassFailure();
      FailureOr<SmallVector<unsigned>> inF32 =
          someOf(function, *chosen, f32Gradients);
      FailureOr<SmallVector<unsigned>> sums =
          someOf(function, *chosen, accumulate);
      if (failed(inF32) || failed(sums) ||
          failed(
              BackwardBuilder(function, recompute).run(*chosen, *inF32, *sums)))
        return signalPassFailure();
      ++numFunctions;
    }
  }

  static bool isLayer(func::FuncOp function) {
    return function
        .walk([](Operation *op) {
          return isa<MoEDialect>(op->getDialect()) ? WalkResult::interrupt()
                                                   : WalkResult::advance();
        })
        .wasInterrupted();
  }

  FailureOr<SmallVector<unsigned>> argumentsOf(func::FuncOp function) {
    SmallVector<unsigned> found;
    for (auto [index, type] : llvm::enumerate(function.getArgumentTypes()))
      if (arguments.empty() && isFloatTensor(type))
        found.push_back(index);
    if (arguments.empty() && found.empty())
      return function.emitError("expected an argument that is a tensor of "
                                "floats");
    for (const std::string &each : arguments) {
      std::optional<unsigned> argument = find(function, each);
      if (!argument)
        return function.emitError("expected the name or the number of an "
                                  "argument to differentiate by, got '")
               << each << "'";
      if (Type type = function.getArgumentTypes()[*argument];
          !isFloatTensor(type))
        return function.emitError("expected argument '")
               << each << "' to be a tensor of floats to differentiate by, got "
               << type;
      if (!llvm::is_contained(found, *argument))
        found.push_back(*argument);
    }
    llvm::sort(found);
    return found;
  }

  static std::optional<unsigned> find(func::FuncOp function, StringRef text) {
    for (unsigned i = 0; i < function.getNumArguments(); ++i)
      if (text == nameOf(function, i) || text == std::to_string(i))
        return i;
    return std::nullopt;
  }

  /// Returns some of the arguments with a gradient.
  static FailureOr<SmallVector<unsigned>> someOf(func::FuncOp function,
                                                 ArrayRef<unsigned> chosen,
                                                 ArrayRef<std::string> names) {
    auto isStatic = [&](unsigned argument) {
      return cast<RankedTensorType>(function.getArgumentTypes()[argument])
          .hasStaticShape();
    };
    SmallVector<unsigned> found;
    if (names.size() == 1 && names.front() == "all") {
      llvm::copy_if(chosen, std::back_inserter(found), isStatic);
      return found;
    }
    for (const std::string &each : names) {
      std::optional<unsigned> argument = find(function, each);
      if (!argument || !llvm::is_contained(chosen, *argument))
        return function.emitError("expected the name or the number of an "
                                  "argument with a gradient, or 'all', got '")
               << each << "'";
      if (!isStatic(*argument))
        return function.emitError("expected argument '")
               << each
               << "' to have a static shape, as weights have, to choose the "
                  "type or the memory of its gradient, got "
               << function.getArgumentTypes()[*argument];
      found.push_back(*argument);
    }
    return found;
  }
};
} // namespace
