//===- Remarks.cpp - Turn missed remarks into warnings --------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Target/Remarks.h"

#include "mlir/IR/Diagnostics.h"
#include "mlir/IR/Remarks.h"
#include "llvm/Support/Error.h"
#include "llvm/Support/raw_ostream.h"

using namespace mlir;
using namespace mlir::moe;

namespace {
class Streamer : public remark::detail::MLIRRemarkStreamerBase {
public:
  explicit Streamer(std::shared_ptr<RemarkListener> listener)
      : listener(std::move(listener)) {}
  void streamOptimizationRemark(const remark::detail::Remark &remark) override {
    listener->listen(remark);
  }

private:
  std::shared_ptr<RemarkListener> listener;
};
} // namespace

llvm::Expected<std::shared_ptr<RemarkListener>>
RemarkListener::install(MLIRContext &context, bool printAll) {
  std::shared_ptr<RemarkListener> listener(new RemarkListener(printAll));
  remark::RemarkCategories categories;
  categories.passed = categories.missed = categories.failed =
      categories.analysis = "moe-.*";
  if (failed(remark::enableOptimizationRemarks(
          context, std::make_unique<Streamer>(listener),
          std::make_unique<remark::RemarkEmittingPolicyAll>(), categories)))
    return llvm::createStringError("cannot listen to optimisation remarks");
  return listener;
}

/// Returns the warning for remarks of this name; empty if they are none.
static llvm::StringRef slowPart(llvm::StringRef name) {
  if (name == "ExpertNotGrouped")
    return "an expert is left to loops";
  if (name == "MatmulNotLowered")
    return "a matmul is left to loops";
  if (name == "WeightsNotPrepacked")
    return "weights are prepared in every call";
  if (name == "WeightsDecoded")
    return "weights are decoded";
  if (name == "OperationNotRaised")
    return "an operation of another dialect is left";
  if (name == "RouterNotRaised")
    return "a router is left to loops";
  return {};
}

/// Returns `loc` as the prefix of a message; empty if it is unknown.
static std::string locationPrefix(Location loc) {
  auto file = loc->findInstanceOf<FileLineColLoc>();
  if (!file)
    return "";
  return (file.getFilename().getValue() + ":" + llvm::Twine(file.getLine()) +
          ":" + llvm::Twine(file.getColumn()) + ": ")
      .str();
}

void RemarkListener::listen(const remark::detail::Remark &remark) {
  std::string text;
  for (const remark::detail::Remark::Arg &each : remark.getArgs())
    text += each.val;
  llvm::StringRef slow = slowPart(remark.getRemarkName());
  llvm::StringRef reason = text;
  reason.consume_front("not fused: ");
  reason.consume_front("not raised: ");
  reason.consume_front("packed in every call: ");
  reason.consume_front("decoded in every call: ");
  std::string prefix = locationPrefix(remark.getLocation());
  {
    std::lock_guard<std::mutex> lock(mutex);
    if (!heard.insert(prefix + remark.getRemarkName().str() + text).second)
      return;
    if (!slow.empty())
      warnings.push_back((prefix + slow + ": " + reason).str());
  }
  if (!slow.empty())
    emitWarning(remark.getLocation()) << slow << ": " << reason;
  else if (printAll)
    emitRemark(remark.getLocation()) << text;
}
