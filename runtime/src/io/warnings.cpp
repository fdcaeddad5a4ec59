//===- warnings.cpp - What metadata says to users -------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "support/json.h"

#include "moe_rt/io.h"

using namespace moe;
using namespace moe::io;

std::vector<std::string> moe::io::readWarnings(std::string_view metadata) {
  json::Value root;
  std::string error;
  std::vector<std::string> warnings;
  if (!json::parse(metadata.data(), metadata.size(), root, error))
    return warnings;
  if (const auto *list = json::asArray(json::find(root, "warnings")))
    for (const json::Value &each : *list)
      if (const std::string *text = json::asString(&each))
        warnings.push_back(*text);
  return warnings;
}

std::string moe::io::readTarget(std::string_view metadata, size_t variant) {
  json::Value root;
  std::string error;
  if (!json::parse(metadata.data(), metadata.size(), root, error))
    return "";
  const auto *variants = json::asArray(json::find(root, "variants"));
  if (!variants || variant >= variants->size())
    return "";
  const json::Value *target = json::find((*variants)[variant], "target");
  if (!target)
    return "";
  if (const json::Value *device = json::find(*target, "device"))
    target = device;
  for (const char *key : {"arch", "cpu", "triple"})
    if (const std::string *name = json::asString(json::find(*target, key)))
      if (!name->empty())
        return *name;
  return "";
}
