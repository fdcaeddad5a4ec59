//===- FakeCheckpoint.h - Tensors for tests of the importers ----*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_TEST_UNIT_IMPORT_FAKECHECKPOINT_H
#define MOE_TEST_UNIT_IMPORT_FAKECHECKPOINT_H

#include "moe/Import/Checkpoint.h"

#include <map>

namespace mlir::moe {

/// Tensors by name; lookups of `unreadable` fail, and those of other names.
class FakeCheckpoint : public CheckpointReader {
public:
  bool contains(llvm::StringRef name) override {
    return tensors.count(name.str());
  }
  llvm::Expected<Tensor> lookup(llvm::StringRef name) override {
    if (name == unreadable)
      return llvm::createStringError("the shard is damaged");
    auto found = tensors.find(name.str());
    if (found == tensors.end())
      return llvm::createStringError("there is no such tensor");
    return found->second;
  }

  std::map<std::string, Tensor> tensors;
  std::string unreadable;
};

} // namespace mlir::moe

#endif // MOE_TEST_UNIT_IMPORT_FAKECHECKPOINT_H
