//===- Remarks.h - What passes say they could not do ------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_TARGET_REMARKS_H
#define MOE_TARGET_REMARKS_H

#include "mlir/IR/MLIRContext.h"
#include "llvm/ADT/StringSet.h"

#include <memory>
#include <mutex>
#include <string>

namespace mlir::remark::detail {
class Remark;
} // namespace mlir::remark::detail

namespace mlir::moe {

/// Listens to the optimisation remarks of a context. Those that say that code
/// will be slow, an expert left to loops for one, are warnings, each of them
/// once however many targets there are.
class RemarkListener {
public:
  /// Of `context`, which has no other remarks. With `printAll`, every remark is
  /// a diagnostic, too.
  static llvm::Expected<std::shared_ptr<RemarkListener>>
  install(MLIRContext &context, bool printAll = false);

  /// The warnings so far, `file:line:column: ` ahead of each where it is known.
  llvm::ArrayRef<std::string> getWarnings() const { return warnings; }

  /// Called by the context, from any of its threads.
  void listen(const remark::detail::Remark &remark);

private:
  explicit RemarkListener(bool printAll) : printAll(printAll) {}

  bool printAll;
  std::mutex mutex;
  llvm::StringSet<> heard;
  llvm::SmallVector<std::string> warnings;
};

} // namespace mlir::moe

#endif // MOE_TARGET_REMARKS_H
