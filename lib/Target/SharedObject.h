//===- SharedObject.h - Link objects into a shared object -------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_TARGET_SHAREDOBJECT_H
#define MOE_LIB_TARGET_SHAREDOBJECT_H

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/SmallVector.h"
#include "llvm/Support/Error.h"

namespace mlir::moe {

/// Links relocatable objects (ELF, x86-64 or AArch64), each of which is
/// complete but for functions of the C and math libraries, into a shared
/// object. The same objects yield the same bytes.
llvm::Expected<llvm::SmallVector<char, 0>>
linkSharedObject(llvm::ArrayRef<llvm::SmallVector<char, 0>> objects);

} // namespace mlir::moe

#endif // MOE_LIB_TARGET_SHAREDOBJECT_H
