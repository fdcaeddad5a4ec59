//===- LayerBuilder.cpp - IR of a layer -----------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "LayerBuilder.h"

#include "MLPBuilder.h"

#include "mlir/AsmParser/AsmParser.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/IR/Verifier.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::importer;

static FloatType parseFloat(Builder &b, StringRef dtype) {
  if (dtype == "bf16")
    return b.getBF16Type();
  return dtype == "f16" ? b.getF16Type() : b.getF32Type();
}

/// Returns the type of the elements of an argument: `dtype` has its name.
static Type parseElement(Builder &b, StringRef dtype) {
  return mlir::parseType(dtype, b.getContext());
}

namespace {
class LayerBuilder {
public:
  LayerBuilder(Location loc, const LayerDescription &layer,
               const LayerWeights &weights)
      : layer(layer), weights(weights), b(loc, loc.getContext()),
        dataType(parseFloat(b, weights.dtype)) {}

  OwningOpRef<ModuleOp> run();

private:
  /// Returns all weights.
  SmallVector<const Weight *> listWeights() const;
  /// Decodes the quantised weights.
  void dequantize();
  func::FuncOp createFunction();
  Value operator[](const std::optional<Weight> &weight) const {
    return weight ? values.lookup(&*weight) : Value();
  }
  Value operator[](const Weight &weight) const {
    return values.lookup(&weight);
  }
  MLPValues valuesOf(const MLPWeights &mlp) const {
    return {(*this)[mlp.gate],   (*this)[mlp.gateBias], (*this)[mlp.up],
            (*this)[mlp.upBias], (*this)[mlp.down],     (*this)[mlp.downBias]};
  }

  Value logits(Value x);
  Value selectionBias();
  Value givenIds();
  GateOp gate(Value logits);
  Value experts(Value grouped, Value offsets);
  Value addShared(Value x, Value y);

  const LayerDescription &layer;
  const LayerWeights &weights;
  MLPBuilder b;
  FloatType dataType;
  llvm::DenseMap<const Weight *, Value> values;
};
} // namespace

//===----------------------------------------------------------------------===//
// Function
//===----------------------------------------------------------------------===//

SmallVector<const Weight *> LayerBuilder::listWeights() const {
  SmallVector<const Weight *> all;
  auto add = [&](const std::optional<Weight> &weight) {
    if (weight)
      all.push_back(&*weight);
  };
  auto addMLP = [&](const MLPWeights &mlp) {
    add(mlp.gate);
    add(mlp.gateBias);
    all.push_back(&mlp.up);
    add(mlp.upBias);
    all.push_back(&mlp.down);
    add(mlp.downBias);
  };
  all.push_back(&weights.router);
  add(weights.routerBias);
  add(weights.selectionBias);
  add(weights.expertsOfTokens);
  addMLP(weights.expert);
  if (weights.shared)
    addMLP(*weights.shared);
  for (const std::optional<Weight> *weight :
       {&weights.sharedGate, &weights.latentDown, &weights.latentDownBias,
        &weights.latentUp, &weights.latentUpBias, &weights.outputBias,
        &weights.outputNorm})
    add(*weight);
  return all;
}

void LayerBuilder::dequantize() {
  for (const Weight *weight : listWeights()) {
    if (weight->format.empty())
      continue;
    auto format =
        cast<FormatAttr>(parseAttribute(weight->format, b.getContext()));
    SmallVector<Value> fields =
        llvm::map_to_vector(weight->fields, [&](const Weight &field) {
          return values.lookup(&field);
        });
    values[weight] = DequantizeOp::create(
        b, RankedTensorType::get(weight->shape, dataType), fields, format);
  }
}

func::FuncOp LayerBuilder::createFunction() {
  SmallVector<const Weight *> arguments;
  for (const Weight *weight : listWeights()) {
    if (weight->format.empty())
      arguments.push_back(weight);
    for (const Weight &field : weight->fields)
      arguments.push_back(&field);
  }
  Type rows =
      RankedTensorType::get({ShapedType::kDynamic, layer.hidden}, dataType);
  SmallVector<Type> types{rows};
  SmallVector<StringRef> inputs{"x"};
  if (weights.expertsOfTokens) {
    types.push_back(
        RankedTensorType::get(ShapedType::kDynamic, b.getI64Type()));
    inputs.push_back("input_ids");
  }
  for (const Weight *weight : arguments)
    types.push_back(
        RankedTensorType::get(weight->shape, parseElement(b, weight->dtype)));
  auto function =
      func::FuncOp::create(b, "layer", b.getFunctionType(types, rows));
  Block *body = function.addEntryBlock();

  auto annotate = [&](unsigned index, StringRef role, StringRef name) {
    function.setArgAttr(index, "moe.role", b.getStringAttr(role));
    function.setArgAttr(index, "moe.name", b.getStringAttr(name));
  };
  for (auto [index, name] : llvm::enumerate(inputs))
    annotate(index, "input", name);
  for (auto [position, weight] : llvm::enumerate(arguments)) {
    unsigned index = inputs.size() + position;
    annotate(index, "weight", weight->name);
    SmallVector<StringRef> source(weight->source.begin(), weight->source.end());
    function.setArgAttr(index, "moe.source", b.getStrArrayAttr(source));
    if (!weight->sourceFormat.empty())
      function.setArgAttr(index, "moe.source_format",
                          b.getStringAttr(weight->sourceFormat));
    if (weight->convert)
      function.setArgAttr(index, "moe.convert", b.getUnitAttr());
    values[weight] = body->getArgument(index);
  }
  return function;
}

//===----------------------------------------------------------------------===//
// Router
//===----------------------------------------------------------------------===//

Value LayerBuilder::logits(Value x) {
  Value logits = b.matmul(x, (*this)[weights.router], /*inOut=*/false);
  Type type = layer.router.f32Logits ? b.getF32Type() : dataType;
  logits = b.addRow(logits, (*this)[weights.routerBias], type);
  double scale = layer.router.logitScale, cap = layer.router.softCap;
  if (scale == 1.0 && cap == 0.0)
    return logits;
  return b.map(logits, b.getF32Type(), [&](ValueRange v) -> Value {
    Value scaled =
        scale == 1.0 ? v[0] : arith::MulFOp::create(b, v[0], b.f32(scale));
    return cap == 0.0 ? scaled : b.softCap(scaled, cap);
  });
}

/// Returns the bias of the selection as a vector.
Value LayerBuilder::selectionBias() {
  Value bias = (*this)[weights.selectionBias];
  if (!bias || !layer.router.selectionBiasIsRow)
    return bias;
  return tensor::CollapseShapeOp::create(
      b, bias, ArrayRef<ReassociationIndices>{{0, 1}});
}

/// Returns the experts that the ids of the tokens choose, if they do. A token
/// that is not in the vocabulary has none.
Value LayerBuilder::givenIds() {
  if (!weights.expertsOfTokens)
    return {};
  Value table = (*this)[weights.expertsOfTokens];
  auto function = cast<func::FuncOp>(table.getParentBlock()->getParentOp());
  Value tokens = function.getArgument(1);
  Value count = tensor::DimOp::create(b, tokens, 0);
  Value empty = tensor::EmptyOp::create(
      b, ArrayRef<OpFoldResult>{count, b.getIndexAttr(layer.router.topK)},
      b.getI32Type());
  AffineMap map = b.getMultiDimIdentityMap(2);
  SmallVector<utils::IteratorType> parallel(2, utils::IteratorType::parallel);
  return linalg::GenericOp::create(
             b, empty.getType(), tokens, empty,
             ArrayRef<AffineMap>{map.getMajorSubMap(1), map}, parallel,
             [&](OpBuilder &, Location, ValueRange args) {
               auto constant = [&](Type type, int64_t value) -> Value {
                 return arith::ConstantOp::create(
                     b, type, b.getIntegerAttr(type, value));
               };
               Type i64 = b.getI64Type(), i32 = b.getI32Type();
               Value isKnown = arith::CmpIOp::create(
                   b, arith::CmpIPredicate::ult, args[0],
                   constant(i64, layer.router.vocabulary));
               Value token = arith::SelectOp::create(b, isKnown, args[0],
                                                     constant(i64, 0));
               Value row =
                   arith::IndexCastOp::create(b, b.getIndexType(), token);
               Value choice = linalg::IndexOp::create(b, 1);
               Value expert =
                   tensor::ExtractOp::create(b, table, ValueRange{row, choice});
               // Narrowed, an id that is no expert must not become one.
               Value isExpert = arith::CmpIOp::create(
                   b, arith::CmpIPredicate::ult, expert,
                   constant(expert.getType(), layer.experts));
               if (expert.getType() != i32)
                 expert = arith::TruncIOp::create(b, i32, expert);
               Value isChosen = arith::AndIOp::create(b, isKnown, isExpert);
               linalg::YieldOp::create(
                   b, arith::SelectOp::create(b, isChosen, expert,
                                              constant(i32, -1))
                          .getResult());
             })
      .getResult(0);
}

GateOp LayerBuilder::gate(Value logits) {
  const Router &router = layer.router;
  MLIRContext *context = b.getContext();
  FloatType scoreType = router.roundScores ? dataType : b.getF32Type();
  auto real = [&](std::optional<double> value) {
    return value ? b.getF64FloatAttr(*value) : FloatAttr();
  };
  GroupsAttr groups;
  if (router.groups)
    groups = GroupsAttr::get(context, router.groups->count, router.groups->keep,
                             router.groups->score, router.groups->fill);
  NormalizeAttr normalize;
  if (router.normalize)
    normalize =
        NormalizeAttr::get(context, router.normalize->kind, router.normalize->p,
                           router.normalize->epsilon, router.normalize->guard);
  return GateOp::create(
      b, logits, /*bias=*/selectionBias(), /*noise=*/Value(), givenIds(),
      router.topK, router.score, ScoreAxis::Experts, router.order,
      Selection::TokenChoice, real(router.margin), groups,
      /*capacity=*/CapacityAttr(), /*threshold=*/FloatAttr(), normalize,
      router.scale == 1.0 ? FloatAttr() : real(router.scale),
      scoreType.isF32() ? TypeAttr() : TypeAttr::get(scoreType));
}

//===----------------------------------------------------------------------===//
// Experts
//===----------------------------------------------------------------------===//

Value LayerBuilder::experts(Value grouped, Value offsets) {
  const MLPWeights &expert = weights.expert;
  MLPValues parameters = valuesOf(expert);
  // Passes the parameters that exist; `slots` receive their slices in the
  // region.
  SmallVector<Value> operands;
  SmallVector<Value *> slots;
  for (Value *slot :
       {&parameters.gate, &parameters.gateBias, &parameters.up,
        &parameters.upBias, &parameters.down, &parameters.downBias})
    if (*slot) {
      operands.push_back(*slot);
      slots.push_back(slot);
    }
  auto op = ExpertOp::create(b, grouped.getType(), grouped, offsets, operands,
                             /*init=*/Value(), /*first=*/IntegerAttr(),
                             /*count=*/IntegerAttr());

  OpBuilder::InsertionGuard guard(b);
  MLPBuilder::RowScope scope(b);
  Block *body = b.createBlock(&op.getBody());
  Value rows = body->addArgument(
      RankedTensorType::get({ShapedType::kDynamic, layer.expertHidden()},
                            dataType),
      b.getLoc());
  for (auto [operand, slot] : llvm::zip_equal(operands, slots)) {
    auto type = cast<RankedTensorType>(operand.getType());
    *slot =
        body->addArgument(RankedTensorType::get(type.getShape().drop_front(),
                                                type.getElementType()),
                          b.getLoc());
  }
  b.setRowsOf(rows);
  YieldOp::create(b, b.mlp(rows, layer.expert, expert.layout, parameters));
  return op.getResult();
}

/// Returns `y` plus the shared expert, scaled by its gate if it has one.
Value LayerBuilder::addShared(Value x, Value y) {
  Value shared = b.mlp(x, *layer.shared, weights.shared->layout,
                       valuesOf(*weights.shared));
  Value gateWeight = (*this)[weights.sharedGate];
  if (!gateWeight)
    return b.map({y, shared}, dataType, [&](ValueRange v) -> Value {
      return arith::AddFOp::create(b, v[0], v[1]);
    });
  if (layer.sharedGateIsVector)
    gateWeight = tensor::ExpandShapeOp::create(
        b,
        RankedTensorType::get(
            {1, layer.hidden},
            cast<RankedTensorType>(gateWeight.getType()).getElementType()),
        gateWeight, ArrayRef<ReassociationIndices>{{0, 1}});
  Value gate = b.matmul(x, gateWeight, /*inOut=*/false); // [T, 1]
  gate = tensor::CollapseShapeOp::create(
      b, gate, ArrayRef<ReassociationIndices>{{0, 1}});
  return b.map({y, shared, gate}, dataType, [&](ValueRange v) -> Value {
    Value factor = b.sigmoid(b.roundTo(v[2], dataType));
    Value scaled = arith::MulFOp::create(b, factor, v[1]);
    return arith::AddFOp::create(b, v[0], scaled);
  });
}

//===----------------------------------------------------------------------===//
// Layer
//===----------------------------------------------------------------------===//

OwningOpRef<ModuleOp> LayerBuilder::run() {
  const Router &router = layer.router;
  OwningOpRef<ModuleOp> module = ModuleOp::create(b.getLoc());
  b.setInsertionPointToStart(module->getBody());
  func::FuncOp function = createFunction();
  b.setInsertionPointToStart(&function.getBody().front());
  Value x = function.getArgument(0);
  dequantize();
  b.setRowsOf(x);

  GateOp chosen = gate(logits(x));
  Value choiceWeights = chosen.getWeights();
  if (router.roundWeights)
    choiceWeights = b.addRow(choiceWeights, /*row=*/Value(), dataType);

  CapacityAttr capacity;
  if (layer.capacity)
    capacity = CapacityAttr::get(b.getContext(), *layer.capacity,
                                 /*factor=*/0.0, Rounding::Ceil,
                                 /*minimum=*/0, /*atMostTokens=*/false);
  Value tokens = x;
  if (layer.latent.width)
    tokens = b.addRow(b.matmul(x, (*this)[weights.latentDown], /*inOut=*/false),
                      (*this)[weights.latentDownBias], dataType);
  auto dispatch = DispatchOp::create(
      b, tokens, chosen.getIds(),
      /*weights=*/router.scaleInput ? choiceWeights : Value(), layer.experts,
      capacity, Priority::Position, Overflow::Drop, /*choices=*/IntegerAttr(),
      Uncovered::Undefined, /*scale_rows=*/router.scaleInput);
  Value rows = experts(dispatch.getGrouped(), dispatch.getOffsets());
  Value y =
      CombineOp::create(b, rows, dispatch.getPositions(),
                        /*weights=*/router.scaleInput ? Value() : choiceWeights,
                        /*dropped=*/Value(), /*normalize=*/NormalizeAttr());
  if (layer.latent.width)
    y = b.addRow(b.matmul(y, (*this)[weights.latentUp], /*inOut=*/false),
                 (*this)[weights.latentUpBias], dataType);
  if (layer.shared)
    y = addShared(x, y);
  if (Value bias = (*this)[weights.outputBias])
    y = b.addRow(y, bias, dataType);
  if (layer.outputScale != 1.0)
    y = b.map(y, dataType, [&](ValueRange v) -> Value {
      return arith::MulFOp::create(b, v[0], b.f32(layer.outputScale));
    });
  if (Value weight = (*this)[weights.outputNorm])
    y = b.rmsNorm(y, weight, layer.outputNorm.epsilon);
  func::ReturnOp::create(b, y);
  return module;
}

/// Runs the verifier and returns its first message: importing reports through
/// Expected.
static llvm::Error verifyModule(ModuleOp module) {
  std::string message;
  ScopedDiagnosticHandler handler(module.getContext(),
                                  [&](Diagnostic &diagnostic) {
                                    if (message.empty())
                                      message = diagnostic.str();
                                  });
  if (succeeded(verify(module)))
    return llvm::Error::success();
  return llvm::createStringError("the imported layer is not valid: " + message);
}

llvm::Expected<OwningOpRef<ModuleOp>>
mlir::moe::importer::buildModule(MLIRContext &context, StringRef name,
                                 const LayerDescription &layer,
                                 const LayerWeights &weights) {
  context.loadDialect<MoEDialect, arith::ArithDialect, func::FuncDialect,
                      linalg::LinalgDialect, math::MathDialect,
                      tensor::TensorDialect>();
  Location loc = NameLoc::get(StringAttr::get(&context, name));
  OwningOpRef<ModuleOp> module = LayerBuilder(loc, layer, weights).run();
  if (llvm::Error invalid = verifyModule(*module))
    return invalid;
  return module;
}
