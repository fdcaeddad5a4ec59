// The dialect acme, and how its operations are raised.

#include "Acme.h"

#include "moe/Dialect/MoE/IR/MoE.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"

using namespace mlir;

#include "AcmeDialect.cpp.inc"
#define GET_OP_CLASSES
#include "AcmeOps.cpp.inc"

void acme::AcmeDialect::initialize() {
  addOperations<
#define GET_OP_LIST
#include "AcmeOps.cpp.inc"
      >();
}

/// A tensor `[rows of like, columns]` without values.
static Value createEmpty(OpBuilder &b, Location loc, Value like,
                         RankedTensorType type) {
  SmallVector<Value> sizes;
  if (type.isDynamicDim(0))
    sizes.push_back(tensor::DimOp::create(b, loc, like, 0));
  return tensor::EmptyOp::create(b, loc, type, sizes);
}

/// The product of x and the weights, and a gate with a softmax.
FailureOr<SmallVector<Value>> acme::RouterOp::raise(RewriterBase &b,
                                                    std::string &why) {
  auto x = cast<RankedTensorType>(getX().getType());
  auto weights = cast<RankedTensorType>(getWeights().getType());
  if (x.getRank() != 2 || weights.getRank() != 2) {
    why = "expected matrices";
    return failure();
  }
  auto type = RankedTensorType::get({x.getDimSize(0), weights.getDimSize(1)},
                                    b.getF32Type());
  Value zero = arith::ConstantOp::create(b, getLoc(), b.getF32FloatAttr(0.0f));
  Value empty = createEmpty(b, getLoc(), getX(), type);
  Value init = linalg::FillOp::create(b, getLoc(), zero, empty).getResult(0);
  Value logits = linalg::MatmulOp::create(
                     b, getLoc(), ValueRange{getX(), getWeights()}, init)
                     .getResult(0);
  OperationState state(getLoc(), moe::GateOp::getOperationName());
  state.addOperands(logits);
  state.addTypes(getResultTypes());
  state.addAttribute("top_k", getKAttr());
  state.addAttribute("operandSegmentSizes",
                     b.getDenseI32ArrayAttr({1, 0, 0, 0}));
  return SmallVector<Value>(b.create(state)->getResults());
}

namespace {
struct GroupedProductModel
    : moe::RaisableOpInterface::ExternalModel<GroupedProductModel,
                                              acme::GroupedProductOp> {
  FailureOr<SmallVector<Value>> raise(Operation *op, RewriterBase &b,
                                      std::string &why) const {
    auto product = cast<acme::GroupedProductOp>(op);
    if (product.getSaturate()) {
      why = "it saturates";
      return failure();
    }
    auto type = cast<RankedTensorType>(op->getResult(0).getType());
    Location loc = op->getLoc();
    // The result may be narrower than the accumulators, which are f32.
    Value init = createEmpty(b, loc, product.getRows(), type);
    auto matmul = moe::GroupedMatmulOp::create(
        b, loc, type, product.getRows(), /*gather=*/nullptr,
        product.getOffsets(), product.getWeights(), /*lhs_scales=*/nullptr,
        /*weight_scales=*/ValueRange(), /*extras=*/ValueRange(), init,
        /*transposed=*/false, /*panels=*/nullptr, /*maps=*/nullptr,
        /*first=*/nullptr, /*blocks=*/nullptr);
    OpBuilder::InsertionGuard guard(b);
    Block *body = b.createBlock(&matmul.getEpilogue());
    Value sum = body->addArgument(b.getF32Type(), loc);
    if (!type.getElementType().isF32())
      sum = arith::TruncFOp::create(b, loc, type.getElementType(), sum);
    moe::YieldOp::create(b, loc, sum);
    return SmallVector<Value>{matmul.getResult()};
  }
};
} // namespace

void acme::registerDialect(DialectRegistry &registry) {
  registry.insert<AcmeDialect>();
  registry.addExtension(+[](MLIRContext *context, AcmeDialect *) {
    GroupedProductOp::attachInterface<GroupedProductModel>(*context);
  });
}
