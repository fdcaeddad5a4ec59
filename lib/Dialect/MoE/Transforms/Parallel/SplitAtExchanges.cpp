//===- SplitAtExchanges.cpp - Parts between exchanges ---------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Parts.h"
#include "moe/Analysis/CapacityPlan.h"
#include "moe/Dialect/MoE/IR/MoEABI.h"
#include "moe/Dialect/MoE/Transforms/Parallel/ExchangeUtils.h"
#include "moe/Dialect/MoE/Transforms/Parallel/Passes.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/IRMapping.h"
#include "llvm/ADT/SetVector.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_MOESPLITATEXCHANGES
#include "moe/Dialect/MoE/Transforms/Parallel/Passes.h.inc"
} // namespace mlir::moe

namespace {
/// Cuts one function into parts, and describes how to run them.
class Splitter {
public:
  /// `domains` are those of the values that other functions saved, by function
  /// and name.
  using Domains = llvm::DenseMap<std::pair<StringAttr, StringAttr>, Domain>;
  Splitter(func::FuncOp function, Domains &domains)
      : function(function), parts(function), b(function.getContext()),
        savedDomains(domains) {}

  LogicalResult run();
  DictionaryAttr getProgram() const { return program; }
  unsigned getNumParts() const { return numParts; }

private:
  LogicalResult findSaved();
  LogicalResult nameValues();
  void addValue(Value value, StringAttr name, StringRef saved = "");
  LogicalResult build(unsigned part);
  void addStep(Operation *exchange);
  LogicalResult describe();
  ArgumentAttr describeArgument(BlockArgument argument);
  bool isIds(Value value);

  StringAttr nameOf(Value value);
  NamedAttribute named(StringRef name, Attribute value) {
    return b.getNamedAttr(name, value);
  }

  func::FuncOp function;
  Parts parts;
  OpBuilder b;
  llvm::DenseMap<Value, StringAttr> names;
  SmallVector<Attribute> values, steps;
  DictionaryAttr program;
  unsigned numParts = 0;
  Domains &savedDomains;
};
} // namespace

LogicalResult Splitter::run() {
  if (failed(findSaved()) || failed(parts.assign()) || failed(nameValues()))
    return failure();
  ArrayRef<Operation *> exchanges = parts.getExchanges();
  for (unsigned part = 0; part < parts.size(); ++part) {
    if (Parts::isBeside(part))
      addStep(exchanges[Parts::exchangeBefore(part) - 1]);
    if (failed(build(part)))
      return failure();
  }
  if (failed(describe()))
    return failure();
  function.erase();
  return success();
}

static bool isSavedRole(Attribute role) {
  auto text = dyn_cast_or_null<StringAttr>(role);
  return text && text.getValue() == savedRole;
}

/// Finds the rows of arguments that the forward function saved.
LogicalResult Splitter::findSaved() {
  for (BlockArgument argument : function.getArguments()) {
    unsigned index = argument.getArgNumber();
    if (!isSavedRole(function.getArgAttr(index, "moe.role")))
      continue;
    auto forward = function->getAttrOfType<FlatSymbolRefAttr>(forwardAttrName);
    auto name = function.getArgAttrOfType<StringAttr>(index, "moe.name");
    auto found = forward && name
                     ? savedDomains.find({forward.getRootReference(), name})
                     : savedDomains.end();
    if (found == savedDomains.end())
      return function.emitError("expected ")
             << forwardAttrName << " to be a function before this one that "
             << "saves what argument " << index << " takes";
    Domain domain = found->second;
    if (domain.kind == Domain::Received)
      domain.exchange = Domain::anyExchange;
    if (!cast<RankedTensorType>(argument.getType()).hasStaticShape())
      parts.setDomain(argument, domain);
  }
  return success();
}

/// Arguments and results have their names; others get one when they are met.
LogicalResult Splitter::nameValues() {
  for (BlockArgument argument : function.getArguments()) {
    unsigned index = argument.getArgNumber();
    auto name = function.getArgAttrOfType<StringAttr>(index, "moe.name");
    names[argument] = name ? name : b.getStringAttr("arg" + Twine(index));
    if (isSavedRole(function.getArgAttr(index, "moe.role")))
      addValue(argument, names[argument], "before");
  }
  ValueRange results =
      function.getBody().front().getTerminator()->getOperands();
  auto isSavedResult = [&](unsigned index) {
    return isSavedRole(function.getResultAttr(index, "moe.role"));
  };
  unsigned count =
      llvm::count_if(llvm::seq<unsigned>(0, results.size()),
                     [&](unsigned i) { return !isSavedResult(i); });
  for (auto [index, result] : llvm::enumerate(results)) {
    auto name = function.getResultAttrOfType<StringAttr>(index, "moe.name");
    if (!name)
      name = b.getStringAttr(count == 1 ? "y" : "y" + Twine(index));
    Domain domain = parts.domainOf(result);
    bool isSaved = isSavedResult(index);
    bool isStatic = cast<RankedTensorType>(result.getType()).hasStaticShape();
    if (!isSaved && !isStatic && domain.kind != Domain::Home &&
        domain.kind != Domain::Invariant)
      return function.emitError("expected results with the tokens of this "
                                "rank, got others in '")
             << name.getValue() << "'";
    if (!names.insert({result, name}).second)
      return function.emitError("expected results that are different values, "
                                "and no arguments, to spread the experts over "
                                "ranks; result '")
             << name.getValue() << "' is also '" << names[result].getValue()
             << "'";
    if (isSaved) {
      addValue(result, name, "after");
      savedDomains[{function.getSymNameAttr(), name}] = domain;
    }
  }
  return success();
}

/// Describes a value; `saved` says whether an earlier call has saved it, or
/// this one does.
void Splitter::addValue(Value value, StringAttr name, StringRef saved) {
  auto type = cast<RankedTensorType>(value.getType());
  SmallVector<NamedAttribute> attributes{
      named("name", name),
      named("dtype", b.getStringAttr(getDTypeName(type.getElementType()))),
      named("shape", b.getI64ArrayAttr(llvm::map_to_vector(
                         type.getShape(),
                         [](int64_t extent) {
                           return ShapedType::isDynamic(extent) ? -1 : extent;
                         }))),
      named("rows", b.getStringAttr(parts.domainOf(value).getName()))};
  if (!saved.empty())
    attributes.push_back(named("saved", b.getStringAttr(saved)));
  values.push_back(b.getDictionaryAttr(attributes));
}

StringAttr Splitter::nameOf(Value value) {
  auto [it, isNew] = names.try_emplace(value);
  if (!isNew)
    return it->second;
  it->second = b.getStringAttr("%" + Twine(values.size()));
  addValue(value, it->second);
  return it->second;
}

/// Builds the function of a part and its step, unless there is nothing to do.
LogicalResult Splitter::build(unsigned part) {
  Parts::Part contents = parts.collect(part);
  if (contents.outputs.empty())
    return success();
  for (Value output : contents.outputs)
    if (auto type = dyn_cast<RankedTensorType>(output.getType());
        !type || getDTypeName(type.getElementType()).empty())
      return emitError(output.getLoc(), "expected a tensor between parts of a "
                                        "function whose experts are spread "
                                        "over ranks, got ")
             << output.getType();
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPoint(function);
  std::string name =
      (function.getName() + (Parts::isBeside(part) ? ".beside" : ".part") +
       Twine(Parts::exchangeBefore(part)))
          .str();
  auto its = func::FuncOp::create(
      b, function.getLoc(), name,
      b.getFunctionType(ValueRange(contents.inputs).getTypes(),
                        ValueRange(contents.outputs).getTypes()));
  for (NamedAttribute attribute : function->getDiscardableAttrs())
    if (attribute.getName() != parallelAttrName &&
        attribute.getName() != forwardAttrName &&
        (attribute.getName() != tokensAttrName || parts.isHome(part)))
      its->setAttr(attribute.getName(), attribute.getValue());

  Block *body = its.addEntryBlock();
  b.setInsertionPointToStart(body);
  IRMapping mapping;
  SmallVector<Attribute> inputs, outputs;
  for (auto [index, input] : llvm::enumerate(contents.inputs)) {
    mapping.map(input, body->getArgument(index));
    auto argument = dyn_cast<BlockArgument>(input);
    auto role = argument ? function.getArgAttrOfType<StringAttr>(
                               argument.getArgNumber(), "moe.role")
                         : StringAttr();
    bool isWeight = role && role.getValue() == "weight";
    its.setArgAttr(index, "moe.name", nameOf(input));
    its.setArgAttr(index, "moe.role",
                   b.getStringAttr(isWeight ? "weight" : "input"));
    if (!isWeight)
      inputs.push_back(nameOf(input));
  }
  for (Operation *op : contents.operations)
    b.clone(*op, mapping);
  SmallVector<Value> results;
  for (auto [index, output] : llvm::enumerate(contents.outputs)) {
    results.push_back(mapping.lookup(output));
    its.setResultAttr(index, "moe.name", nameOf(output));
    outputs.push_back(nameOf(output));
  }
  func::ReturnOp::create(b, function.getLoc(), results);
  steps.push_back(
      b.getDictionaryAttr({named("call", b.getStringAttr(name)),
                           named("inputs", b.getArrayAttr(inputs)),
                           named("outputs", b.getArrayAttr(outputs))}));
  ++numParts;
  return success();
}

void Splitter::addStep(Operation *op) {
  auto add = [&](StringRef kind, ArrayRef<NamedAttribute> attributes) {
    steps.push_back(
        b.getDictionaryAttr(named(kind, b.getDictionaryAttr(attributes))));
  };
  auto exchange = dyn_cast<ExchangeOp>(op);
  if (!exchange)
    return add(isa<AllGatherOp>(op) ? "gather" : "own",
               {named("source", nameOf(op->getOperand(0))),
                named("result", nameOf(op->getResult(0)))});
  SmallVector<Attribute> sources, results;
  for (auto [index, source] : llvm::enumerate(exchange.getSources())) {
    SmallVector<NamedAttribute> each{named("value", nameOf(source))};
    if (index == 0 && exchange.getGather())
      each.push_back(named("index", nameOf(exchange.getGather())));
    sources.push_back(b.getDictionaryAttr(each));
  }
  for (Value rows : exchange.getRows())
    results.push_back(nameOf(rows));
  SmallVector<NamedAttribute> attributes{
      named("sources", b.getArrayAttr(sources)),
      named("counts", nameOf(exchange.getSend())),
      named("results", b.getArrayAttr(results))};
  if (exchange.getExpect())
    attributes.push_back(named("expected", nameOf(exchange.getExpect())));
  if (exchange.getReceived())
    attributes.push_back(named("received", nameOf(exchange.getReceived())));
  add("exchange", attributes);
}

/// True if a value has ids of experts, which a call must check.
bool Splitter::isIds(Value value) {
  return llvm::any_of(value.getUses(), [&](OpOperand &use) {
    if (auto place = dyn_cast<PlaceOp>(use.getOwner()))
      return use.get() == place.getIds();
    if (auto gate = dyn_cast<GateOp>(use.getOwner()))
      return use.get() == gate.getGivenIds();
    if (auto keep = dyn_cast<KeepOp>(use.getOwner()))
      return use.get() == keep.getIds();
    auto gather = dyn_cast<AllGatherOp>(use.getOwner());
    return gather && isIds(gather.getAll());
  });
}

/// Describes an argument as the caller of the whole layer sees it: a weight of
/// experts has all of them.
ArgumentAttr Splitter::describeArgument(BlockArgument argument) {
  unsigned index = argument.getArgNumber();
  auto attribute = [&](StringRef name) {
    return function.getArgAttr(index, name);
  };
  auto type = cast<RankedTensorType>(argument.getType());
  if (auto experts = dyn_cast_or_null<IntegerAttr>(attribute("moe.experts"))) {
    SmallVector<int64_t> shape(type.getShape());
    shape[0] = experts.getInt();
    type = type.clone(shape);
  }
  auto role = dyn_cast_or_null<StringAttr>(attribute("moe.role"));
  bool isWeight = role && role.getValue() == "weight";
  auto parallel = function->getAttrOfType<ParallelAttr>(parallelAttrName);
  int64_t experts = parts.getNumExperts();
  return ArgumentAttr::get(
      b.getContext(), names[argument],
      isWeight ? ArgumentRole::Weight : ArgumentRole::Input, type,
      parallel && !isWeight && isIds(argument) ? experts : 0,
      dyn_cast_or_null<ArrayAttr>(attribute("moe.source")),
      dyn_cast_or_null<StringAttr>(attribute("moe.source_format")),
      bool(attribute("moe.convert")), /*retained=*/true, /*alignment=*/0,
      /*prepare=*/{}, /*sources=*/{}, /*measures=*/{});
}

LogicalResult Splitter::describe() {
  FailureOr<std::pair<int64_t, int64_t>> range = tokenRange(function);
  if (failed(range))
    return failure();
  SmallVector<Attribute> arguments;
  for (BlockArgument argument : function.getArguments()) {
    auto role = function.getArgAttrOfType<StringAttr>(argument.getArgNumber(),
                                                      "moe.role");
    if (!isa<RankedTensorType>(argument.getType()))
      return function.emitError("expected arguments that are ranked tensors, "
                                "got ")
             << argument.getType();
    if (!role ||
        (role.getValue() != "placement" && role.getValue() != savedRole))
      arguments.push_back(describeArgument(argument));
  }
  for (auto [index, result] : llvm::enumerate(
           function.getBody().front().getTerminator()->getOperands()))
    if (!isSavedRole(function.getResultAttr(index, "moe.role")))
      arguments.push_back(
          ArgumentAttr::get(names[result], ArgumentRole::Output,
                            cast<RankedTensorType>(result.getType())));
  SmallVector<NamedAttribute> attributes{
      named("name", b.getStringAttr(function.getName())),
      named("signature",
            SignatureAttr::get(b.getContext(), b.getArrayAttr(arguments), {})),
      named("tokens", b.getI64ArrayAttr({range->first, range->second})),
      named("values", b.getArrayAttr(values)),
      named("steps", b.getArrayAttr(steps))};
  if (auto parallel = function->getAttrOfType<ParallelAttr>(parallelAttrName)) {
    attributes.push_back(
        named("experts", b.getI64IntegerAttr(parts.getNumExperts())));
    attributes.push_back(
        named("slots", b.getI64IntegerAttr(parallel.getSlots())));
    attributes.push_back(
        named("replicas", b.getI64IntegerAttr(parallel.getReplicas())));
  }
  if (auto forward =
          function->getAttrOfType<FlatSymbolRefAttr>(forwardAttrName))
    attributes.push_back(named("forward", forward.getRootReference()));
  program = b.getDictionaryAttr(attributes);
  return success();
}

namespace {
struct MoESplitAtExchanges
    : moe::impl::MoESplitAtExchangesBase<MoESplitAtExchanges> {
  using MoESplitAtExchangesBase::MoESplitAtExchangesBase;

  void runOnOperation() override {
    ModuleOp module = getOperation();
    SmallVector<Attribute> programs;
    if (auto existing = module->getAttrOfType<ArrayAttr>(programsAttrName))
      llvm::append_range(programs, existing);
    size_t before = programs.size();
    SmallVector<func::FuncOp> functions;
    for (auto function : module.getOps<func::FuncOp>())
      if (function.isPublic() && !function.isExternal() &&
          function
              .walk([](Operation *op) {
                return isExchange(op) ? WalkResult::interrupt()
                                      : WalkResult::advance();
              })
              .wasInterrupted())
        functions.push_back(function);
    Splitter::Domains savedDomains;
    for (func::FuncOp function : functions) {
      Splitter splitter(function, savedDomains);
      if (failed(splitter.run()))
        return signalPassFailure();
      programs.push_back(splitter.getProgram());
      numParts += splitter.getNumParts();
    }
    if (programs.size() > before)
      module->setAttr(programsAttrName,
                      ArrayAttr::get(&getContext(), programs));
  }
};
} // namespace
