//===- Export.cpp - The calling convention of the runtime -----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Analysis/CapacityPlan.h"
#include "moe/Analysis/TokenExtents.h"
#include "moe/Dialect/MoE/IR/MoEABI.h"
#include "moe/Dialect/MoE/Transforms/ABI/Passes.h"

#include "mlir/Dialect/Bufferization/IR/Bufferization.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"
#include "llvm/ADT/StringSet.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_MOEEXPORT
#include "moe/Dialect/MoE/Transforms/ABI/Passes.h.inc"
} // namespace mlir::moe

namespace {
/// Exports one function.
class Exporter {
public:
  explicit Exporter(func::FuncOp function)
      : function(function), builder(function.getContext()) {}

  LogicalResult run();

private:
  LogicalResult describeInputs();
  LogicalResult fixTokens(Operation *op,
                          ArrayRef<std::pair<Value, int64_t>> extents);
  LogicalResult findFixedTokens();
  LogicalResult setTokenRange();
  LogicalResult verifyResults(func::ReturnOp returnOp);
  LogicalResult addOutputs(func::ReturnOp returnOp);
  template <typename Op>
  void addReport(Op dispatch, unsigned index, func::ReturnOp returnOp);
  FailureOr<ArgumentAttr> describe(Type type, StringRef name,
                                   ArgumentRole role);
  BlockArgument addArgument(Type type);
  void write(Value tensor, Value destination, func::ReturnOp before);
  LogicalResult joinAccumulators();
  int64_t numExpertsOf(BlockArgument ids);

  func::FuncOp function;
  Builder builder;
  SmallVector<Attribute> arguments, dispatchReports;
  SmallVector<BlockArgument> accumulators;
  llvm::StringSet<> names;
  /// The value of T that static extents require, if any.
  std::optional<int64_t> fixedTokens;
};
} // namespace

/// Verifies the type and the name of an argument and describes it.
FailureOr<ArgumentAttr> Exporter::describe(Type type, StringRef name,
                                           ArgumentRole role) {
  auto shaped = dyn_cast<RankedTensorType>(type);
  if (!shaped || shaped.getEncoding() ||
      getDTypeName(shaped.getElementType()).empty())
    return function.emitError()
           << "expected '" << name
           << "' to be a ranked tensor of f32, f16, bf16, f64, f8E4M3FN, "
              "f8E5M2, f8E8M0FNU, i8, i16, i32 or i64 to export '"
           << function.getName() << "', got " << type;
  if (name.empty())
    return function.emitError()
           << "expected arguments and results of the exported function '"
           << function.getName() << "' to have names that are not empty";
  if (!names.insert(name).second)
    return function.emitError()
           << "expected each argument and result of the exported function '"
           << function.getName() << "' to have a name of its own, got '" << name
           << "' twice";
  return ArgumentAttr::get(builder.getStringAttr(name), role, shaped);
}

/// Returns the number of experts if an argument is used as expert ids, so that
/// the runtime can check them before a call; otherwise 0.
int64_t Exporter::numExpertsOf(BlockArgument ids) {
  int64_t experts = 0;
  auto narrow = [&](int64_t count) {
    experts = experts == 0 ? count : std::min(experts, count);
  };
  for (OpOperand &use : ids.getUses()) {
    if (auto dispatch = dyn_cast<DispatchOp>(use.getOwner()))
      if (use.get() == dispatch.getIds())
        narrow(dispatch.getNumExperts());
    if (auto gate = dyn_cast<GateOp>(use.getOwner()))
      if (use.get() == gate.getGivenIds())
        narrow(gate.getNumExperts());
  }
  return experts;
}

LogicalResult Exporter::describeInputs() {
  for (BlockArgument argument : function.getArguments()) {
    unsigned index = argument.getArgNumber();
    auto name = function.getArgAttrOfType<StringAttr>(index, "moe.name");
    auto role = function.getArgAttrOfType<StringAttr>(index, "moe.role");
    std::string defaultName = "arg" + std::to_string(index);
    StringRef nameText = name ? name.getValue() : StringRef(defaultName);
    StringRef roleText = role ? role.getValue() : "input";
    if (function.getArgAttr(index, accumulatesAttrName)) {
      accumulators.push_back(argument);
      continue;
    }
    bool isWeight = roleText == "weight";
    if (!isWeight && roleText != "input")
      return function.emitError()
             << "expected moe.role of '" << nameText
             << "' to be \"input\" or \"weight\", got \"" << roleText << "\"";
    auto type = dyn_cast<RankedTensorType>(argument.getType());
    if (isWeight && type && !type.hasStaticShape())
      return function.emitError() << "expected weight '" << nameText
                                  << "' to have a static shape, got " << type;
    FailureOr<ArgumentAttr> described =
        describe(argument.getType(), nameText,
                 isWeight ? ArgumentRole::Weight : ArgumentRole::Input);
    if (failed(described))
      return failure();
    // The runtime checks the ids of each call, but not those of a weight.
    arguments.push_back(ArgumentAttr::get(
        function.getContext(), described->getName(), described->getRole(),
        described->getType(), isWeight ? 0 : numExpertsOf(argument),
        function.getArgAttrOfType<ArrayAttr>(index, "moe.source"),
        function.getArgAttrOfType<StringAttr>(index, "moe.source_format"),
        bool(function.getArgAttr(index, "moe.convert")), /*retained=*/true,
        /*alignment=*/0, /*prepare=*/{}, /*sources=*/{}, /*measures=*/{}));
    // The signature replaces these attributes.
    for (StringRef name : {"moe.name", "moe.role", "moe.source",
                           "moe.source_format", "moe.convert"})
      function.removeArgAttr(index, name);
    // A call writes only to its outputs.
    if (type)
      function.setArgAttr(index, "bufferization.writable",
                          builder.getBoolAttr(false));
  }
  return success();
}

/// If one of the extents, (tensor, dimension), is T and another is static,
/// records that T must be equal to the static one.
LogicalResult Exporter::fixTokens(Operation *op,
                                  ArrayRef<std::pair<Value, int64_t>> extents) {
  std::optional<int64_t> known;
  bool isTokens = false;
  for (auto [tensor, dim] : extents) {
    auto type = tensor ? dyn_cast<RankedTensorType>(tensor.getType())
                       : RankedTensorType();
    if (!type)
      continue;
    if (!type.isDynamicDim(dim))
      known = type.getDimSize(dim);
    else if (extentOf(tensor, dim, function).isTokens())
      isTokens = true;
  }
  if (!known || !isTokens)
    return success();
  if (fixedTokens && *fixedTokens != *known)
    return op->emitOpError("expected the ")
           << *fixedTokens << " tokens that others need, got " << *known;
  fixedTokens = known;
  return success();
}

/// An operation on both T rows and a static number of rows fixes T.
LogicalResult Exporter::findFixedTokens() {
  WalkResult result = function.walk([&](Operation *op) {
    using Extents = SmallVector<std::pair<Value, int64_t>>;
    SmallVector<Extents> all;
    auto rows = [&](ArrayRef<Value> tensors) {
      all.push_back(llvm::map_to_vector(
          tensors, [](Value each) { return std::pair(each, int64_t(0)); }));
    };
    if (auto linalgOp = dyn_cast<linalg::LinalgOp>(op)) {
      all.resize(linalgOp.getNumLoops());
      for (OpOperand &operand : op->getOpOperands())
        for (auto [dim, expr] : llvm::enumerate(
                 linalgOp.getMatchingIndexingMap(&operand).getResults()))
          if (auto loop = dyn_cast<AffineDimExpr>(expr))
            all[loop.getPosition()].push_back({operand.get(), dim});
    } else if (auto cast = dyn_cast<tensor::CastOp>(op)) {
      auto type = dyn_cast<RankedTensorType>(cast.getType());
      for (int64_t dim = 0; type && dim < type.getRank(); ++dim)
        all.push_back({{cast.getSource(), dim}, {cast.getDest(), dim}});
    } else if (auto gate = dyn_cast<GateOp>(op)) {
      rows({gate.getLogits(), gate.getNoise(), gate.getGivenIds()});
    } else if (auto gradient = dyn_cast<GateGradientOp>(op)) {
      rows({gradient.getLogits(), gradient.getIds(), gradient.getGradient(),
            gradient.getNoise()});
    } else if (auto loss = dyn_cast<AuxiliaryLossOp>(op)) {
      rows({loss.getValues(), loss.getIds(), loss.getMask()});
    } else if (auto loss = dyn_cast<AuxiliaryLossGradientOp>(op)) {
      rows({loss.getValues(), loss.getIds(), loss.getMask()});
    } else if (auto load = dyn_cast<ExpertLoadOp>(op)) {
      rows({load.getIds(), load.getMask()});
    } else if (auto dispatch = dyn_cast<DispatchOp>(op)) {
      rows({dispatch.getRows(), dispatch.getIds(), dispatch.getWeights()});
    } else if (auto combine = dyn_cast<CombineOp>(op)) {
      rows(
          {combine.getPositions(), combine.getWeights(), combine.getDropped()});
    }
    for (const Extents &extents : all)
      if (failed(fixTokens(op, extents)))
        return WalkResult::interrupt();
    return WalkResult::advance();
  });
  return failure(result.wasInterrupted());
}

/// Verifies or adds the range of T; row indices are 32-bit.
LogicalResult Exporter::setTokenRange() {
  FailureOr<std::pair<int64_t, int64_t>> range = tokenRange(function);
  if (failed(range) || failed(findFixedTokens()))
    return failure();
  if (fixedTokens) {
    if (*fixedTokens < range->first || *fixedTokens > range->second)
      return function.emitError()
             << "expected " << range->first << " to " << range->second
             << " tokens, got operations for " << *fixedTokens << " alone";
    range = std::pair(*fixedTokens, *fixedTokens);
  }
  function->setAttr(tokensAttrName,
                    builder.getI64ArrayAttr({range->first, range->second}));
  return success();
}

/// Dynamic extents of results must be T, as the caller allocates T rows.
LogicalResult Exporter::verifyResults(func::ReturnOp returnOp) {
  auto range = function->getAttrOfType<ArrayAttr>(tokensAttrName);
  int64_t least = std::max<int64_t>(cast<IntegerAttr>(range[0]).getInt(), 1);
  int64_t most = cast<IntegerAttr>(range[1]).getInt();
  for (auto [index, result] : llvm::enumerate(returnOp.getOperands())) {
    auto type = dyn_cast<RankedTensorType>(result.getType());
    for (int64_t dim = 0; type && dim < type.getRank(); ++dim) {
      if (!type.isDynamicDim(dim))
        continue;
      Extent extent = extentOf(result, dim, function);
      for (int64_t tokens : {least, std::min(least + 1, most)}) {
        std::optional<int64_t> number =
            tokens > most ? tokens : evaluateExtent(extent, tokens, function);
        if (number && *number != tokens)
          return emitError(result.getLoc(), "expected the dynamic extents of "
                                            "results to be the number of "
                                            "tokens, got ")
                 << *number << " for dimension " << dim << " of result #"
                 << index << " where there are " << tokens << " tokens";
      }
    }
  }
  return success();
}

BlockArgument Exporter::addArgument(Type type) {
  unsigned index = function.getNumArguments();
  (void)function.insertArgument(index, type, {}, function.getLoc());
  return function.getArgument(index);
}

void Exporter::write(Value tensor, Value destination, func::ReturnOp before) {
  OpBuilder b(before);
  bufferization::MaterializeInDestinationOp::create(
      b, function.getLoc(), Type(), tensor, destination, /*restrict=*/true,
      /*writable=*/true);
}

/// Turns results into memref arguments that the caller provides.
LogicalResult Exporter::addOutputs(func::ReturnOp returnOp) {
  SmallVector<Value> results(returnOp.getOperands());
  for (auto [index, result] : llvm::enumerate(results)) {
    auto name = function.getResultAttrOfType<StringAttr>(index, "moe.name");
    std::string defaultName =
        results.size() == 1 ? "y" : "y" + std::to_string(index);
    FailureOr<ArgumentAttr> described = describe(
        result.getType(), name ? name.getValue() : StringRef(defaultName),
        ArgumentRole::Output);
    if (failed(described))
      return failure();
    arguments.push_back(*described);
    auto type = cast<RankedTensorType>(result.getType());
    write(result,
          addArgument(MemRefType::get(type.getShape(), type.getElementType())),
          returnOp);
  }
  for (int index = results.size() - 1; index >= 0; --index)
    (void)function.eraseResult(index);
  returnOp.getOperandsMutable().clear();
  return success();
}

/// Has arguments that are the memory of a result before the call read it there,
/// in the argument that the caller provides for the result.
LogicalResult Exporter::joinAccumulators() {
  if (accumulators.empty())
    return success();
  unsigned firstOutput = function.getNumArguments();
  SmallVector<Attribute> names;
  llvm::SmallDenseMap<StringRef, BlockArgument> outputs;
  for (auto described : llvm::reverse(arguments)) {
    auto output = cast<ArgumentAttr>(described);
    if (output.getRole() != ArgumentRole::Output)
      break;
    outputs[output.getName().getValue()] = function.getArgument(--firstOutput);
  }
  OpBuilder b = OpBuilder::atBlockBegin(&function.getBody().front());
  for (BlockArgument before : accumulators) {
    auto name = function.getArgAttrOfType<StringAttr>(before.getArgNumber(),
                                                      accumulatesAttrName);
    BlockArgument memory = outputs.lookup(name.getValue());
    Type type =
        memory ? memref::getTensorTypeFromMemRefType(memory.getType()) : Type();
    if (type != before.getType())
      return function.emitError("expected an argument with ")
             << accumulatesAttrName << " = " << name
             << " to have the type of that result, got " << before.getType();
    before.replaceAllUsesWith(bufferization::ToTensorOp::create(
        b, function.getLoc(), type, memory, /*restrict=*/true,
        /*writable=*/true));
    names.push_back(name);
  }
  for (BlockArgument before : llvm::reverse(accumulators))
    (void)function.eraseArgument(before.getArgNumber());
  function->setAttr(accumulatesAttrName, builder.getArrayAttr(names));
  return success();
}

static Value constantOf(OpBuilder &b, Location loc, Type type, int64_t value) {
  return arith::ConstantOp::create(b, loc, b.getIntegerAttr(type, value));
}

/// Returns an i1: true if the id is that of an expert.
template <typename Op>
static Value isValidId(OpBuilder &b, Location loc, Op dispatch, Value id) {
  return arith::CmpIOp::create(
      b, loc, arith::CmpIPredicate::ult, id,
      constantOf(b, loc, id.getType(), dispatch.getNumExperts()));
}

/// Returns sum + flag, in i64.
static Value addFlag(OpBuilder &b, Location loc, Value sum, Value flag) {
  flag = arith::ExtUIOp::create(b, loc, sum.getType(), flag);
  return arith::AddIOp::create(b, loc, sum, flag);
}

/// Counts the choices with a valid id, at most `getMaxChoices()` for each
/// token: the others are fallbacks for choices that are dropped.
template <typename Op>
static Value countWithFallbacks(ImplicitLocOpBuilder &b, Op dispatch,
                                Value zero) {
  Type i64 = b.getI64Type();
  constexpr auto reduction = utils::IteratorType::reduction;
  Value ids = dispatch.getIds();
  Value none = tensor::EmptyOp::create(
      b, tensor::getMixedSize(b, b.getLoc(), ids, 0), i64);
  none = linalg::FillOp::create(b, constantOf(b, b.getLoc(), i64, 0), none)
             .getResult(0);
  auto ofToken = linalg::GenericOp::create(
      b, none.getType(), ids, none,
      ArrayRef<AffineMap>{b.getMultiDimIdentityMap(2),
                          AffineMap::get(2, 0, b.getAffineDimExpr(0))},
      ArrayRef<utils::IteratorType>{utils::IteratorType::parallel, reduction},
      [&](OpBuilder &b, Location loc, ValueRange v) {
        Value valid = isValidId(b, loc, dispatch, v[0]);
        linalg::YieldOp::create(b, loc, addFlag(b, loc, v[1], valid));
      });
  auto sum = linalg::GenericOp::create(
      b, zero.getType(), ofToken.getResult(0), zero,
      ArrayRef<AffineMap>{b.getDimIdentityMap(),
                          AffineMap::get(1, 0, b.getContext())},
      reduction, [&](OpBuilder &b, Location loc, ValueRange v) {
        Value most = constantOf(b, loc, i64, dispatch.getMaxChoices());
        Value count = arith::MinSIOp::create(b, loc, v[0], most);
        Value sum = arith::AddIOp::create(b, loc, v[1], count);
        linalg::YieldOp::create(b, loc, sum);
      });
  return sum.getResult(0);
}

/// True if a gate chooses the ids: each is -1 or valid.
template <typename Op> static bool isChosenByGate(Op dispatch) {
  auto gate = dispatch.getIds().template getDefiningOp<GateOp>();
  return gate && !gate.getGivenIds() &&
         static_cast<uint64_t>(gate.getNumExperts()) ==
             dispatch.getNumExperts();
}

/// True if, in addition, no id is -1. Without a capacity a call may skip
/// tokens, which then choose no expert.
template <typename Op> static bool choosesAlways(Op dispatch) {
  if (!isChosenByGate(dispatch) || !dispatch.getCapacity())
    return false;
  return !dispatch.getIds().template getDefiningOp<GateOp>().mayLeaveOut();
}

/// Builds the counters of a dispatch: {valid choices, invalid ids}. Fallback
/// choices are not counted.
template <typename Op>
static Value countChoices(ImplicitLocOpBuilder &b, Op dispatch) {
  if (choosesAlways(dispatch)) {
    Value tokens = b.createOrFold<tensor::DimOp>(dispatch.getIds(), 0);
    Type i64 = b.getI64Type();
    Value most = constantOf(b, b.getLoc(), i64, dispatch.getMaxChoices());
    Value asked = arith::MulIOp::create(
        b, arith::IndexCastOp::create(b, i64, tokens), most);
    return tensor::FromElementsOp::create(
        b, ValueRange{asked, constantOf(b, b.getLoc(), i64, 0)});
  }
  bool all = dispatch.getMaxChoices() == dispatch.getTopK();
  bool retry = dispatch.getOverflow() == Overflow::NextChoice;
  auto scalar = RankedTensorType::get({}, b.getI64Type());
  Value zero = arith::ConstantOp::create(
      b, DenseElementsAttr::get(scalar, b.getI64IntegerAttr(0)));
  AffineMap identity = b.getMultiDimIdentityMap(2);
  AffineMap none = AffineMap::get(2, 0, b.getContext());
  auto sums = linalg::GenericOp::create(
      b, TypeRange{scalar, scalar}, dispatch.getIds(), ValueRange{zero, zero},
      ArrayRef<AffineMap>{identity, none, none},
      ArrayRef<utils::IteratorType>(
          {utils::IteratorType::reduction, utils::IteratorType::reduction}),
      [&](OpBuilder &nested, Location loc, ValueRange v) {
        ImplicitLocOpBuilder b(loc, nested);
        using P = arith::CmpIPredicate;
        Value valid = isValidId(b, loc, dispatch, v[0]);
        Value sentinel = arith::CmpIOp::create(
            b, P::eq, v[0], constantOf(b, loc, b.getI32Type(), -1));
        Value known = arith::OrIOp::create(b, valid, sentinel);
        Value invalid = arith::XOrIOp::create(
            b, known, constantOf(b, loc, b.getI1Type(), 1));
        if (!all && !retry) {
          Value first = arith::CmpIOp::create(
              b, P::ult, linalg::IndexOp::create(b, 1),
              constantOf(b, loc, b.getIndexType(), dispatch.getMaxChoices()));
          valid = arith::AndIOp::create(b, valid, first);
        }
        linalg::YieldOp::create(b, ValueRange{addFlag(b, loc, v[1], valid),
                                              addFlag(b, loc, v[2], invalid)});
      });
  SmallVector<Value> counts(sums.getResults());
  if (!all && retry)
    counts[0] = countWithFallbacks(b, dispatch, zero);
  for (Value &sum : counts)
    sum = tensor::ExtractOp::create(b, sum, ValueRange{});
  return tensor::FromElementsOp::create(b, counts);
}

/// True if no counters are needed: each choice that is not -1 is valid and
/// becomes a row.
template <typename Op> static bool keepsAllChoices(Op dispatch) {
  return isChosenByGate(dispatch) && !dispatch.getCapacity() &&
         dispatch.getMaxChoices() == dispatch.getTopK();
}

/// Adds arguments for the offsets and counters of a dispatch, whose buffers the
/// runtime owns.
template <typename Op>
void Exporter::addReport(Op dispatch, unsigned index, func::ReturnOp returnOp) {
  ImplicitLocOpBuilder b(dispatch.getLoc(), returnOp);
  auto unused = [&](StringRef kind) {
    std::string name = kind.str() + std::to_string(index);
    while (names.contains(name))
      name += '_';
    return name;
  };
  auto report = [&](Value tensor, StringRef name, ArgumentRole role) {
    auto type = cast<RankedTensorType>(tensor.getType());
    // `describe` cannot fail: the type is supported and the name is unique.
    arguments.push_back(*describe(type, name, role));
    write(tensor,
          addArgument(MemRefType::get(type.getShape(), type.getElementType())),
          returnOp);
  };
  std::string offsets = unused("offsets");
  Value counted;
  if (!keepsAllChoices(dispatch))
    counted = countChoices(b, dispatch);
  report(dispatch.getOffsets(), offsets, ArgumentRole::Offsets);
  StringAttr counters;
  if (counted) {
    counters = builder.getStringAttr(unused("counters"));
    report(counted, counters, ArgumentRole::Counters);
  }
  dispatchReports.push_back(DispatchReportAttr::get(
      function.getContext(), dispatch.getNumExperts(), dispatch.getTopK(),
      builder.getStringAttr(offsets), counters));
}

LogicalResult Exporter::run() {
  for (StringRef prefix : {StringRef(entryPrefix), StringRef(workspacePrefix),
                           StringRef("_mlir_ciface_")})
    if (function.getName().starts_with(prefix))
      return function.emitError()
             << "expected the exported function '" << function.getName()
             << "' to have another name: those with '" << prefix
             << "' are made for the runtime";
  if (!function.getBody().hasOneBlock())
    return function.emitError()
           << "expected one block in the exported function '"
           << function.getName() << "', got "
           << function.getBody().getBlocks().size();
  auto returnOp =
      dyn_cast<func::ReturnOp>(function.getBody().front().getTerminator());
  if (!returnOp || returnOp.getNumOperands() == 0)
    return function.emitError() << "expected the exported function '"
                                << function.getName() << "' to return a tensor";

  // The runtime reports dispatches that run exactly once in a call; one in a
  // loop or in an expert may run several times.
  SmallVector<Operation *> reported;
  for (Operation &op : function.getBody().front())
    if (isa<DispatchOp, RouteOp>(op))
      reported.push_back(&op);
  if (failed(verifyCapacityPlan(function)) || failed(describeInputs()) ||
      failed(setTokenRange()) || failed(verifyResults(returnOp)) ||
      failed(addOutputs(returnOp)) || failed(joinAccumulators()))
    return failure();
  for (auto [index, op] : llvm::enumerate(reported))
    llvm::TypeSwitch<Operation *>(op).Case<DispatchOp, RouteOp>(
        [&, index = index](auto op) { addReport(op, index, returnOp); });
  setSignature(function,
               SignatureAttr::get(function.getContext(),
                                  builder.getArrayAttr(arguments),
                                  builder.getArrayAttr(dispatchReports)));
  return success();
}

namespace {
struct MoEExport : moe::impl::MoEExportBase<MoEExport> {
  void runOnOperation() override {
    SmallVector<func::FuncOp> exported;
    for (auto function : getOperation().getOps<func::FuncOp>())
      if (function.isPublic() && !function.isExternal() &&
          !isExported(function))
        exported.push_back(function);
    for (func::FuncOp function : exported) {
      auto uses = SymbolTable::getSymbolUses(function, getOperation());
      if (uses && !uses->empty()) {
        function.emitError()
            << "expected the exported function '" << function.getName()
            << "' not to be called within the module";
        return signalPassFailure();
      }
      if (failed(Exporter(function).run()))
        return signalPassFailure();
    }
  }
};
} // namespace
