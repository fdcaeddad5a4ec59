//===- Stage.cpp - Names of stages in locations ---------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Dialect/MoERuntime/Transforms/Stage.h"

#include "mlir/IR/BuiltinAttributes.h"
#include "llvm/ADT/STLExtras.h"

using namespace mlir;
using namespace mlir::moe;

// By metadata of a fused location: named ones are for users.
Location mlir::moe::nameStage(Location location, StringRef name) {
  MLIRContext *context = location.getContext();
  auto metadata = DictionaryAttr::get(
      context, NamedAttribute(StringAttr::get(context, stageAttrName),
                              StringAttr::get(context, name)));
  return FusedLoc::get({location}, metadata, context);
}

void mlir::moe::findStages(Location location,
                           SmallVectorImpl<StringAttr> &names) {
  location->walk([&](Location each) {
    auto fused = dyn_cast<FusedLoc>(each);
    auto metadata =
        fused ? dyn_cast_or_null<DictionaryAttr>(fused.getMetadata()) : nullptr;
    if (auto name =
            metadata ? metadata.getAs<StringAttr>(stageAttrName) : StringAttr())
      if (!llvm::is_contained(names, name))
        names.push_back(name);
    return WalkResult::advance();
  });
}
