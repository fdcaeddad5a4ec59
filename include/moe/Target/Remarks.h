//===- Remarks.h - Turn missed remarks into warnings ------------*- C++ -*-===//
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

/// Listens to the optimization remarks of a context. Remarks of slow code, such
/// as an expert that is lowered to loops, become warnings, each of them once
/// for all targets.
class RemarkListener {
public:
  /// Installs a listener in `context`, which must have no other remark
  /// streamer. With `printAll`, every remark is emitted as a diagnostic, too.
  static llvm::Expected<std::shared_ptr<RemarkListener>>
  install(MLIRContext &context, bool printAll = false);

  /// The warnings so far, each with the prefix `file:line:column: ` if known.
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
