//===- FamilyTable.cpp - The families that can be imported ---------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Family.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::importer;

FamilyTable::FamilyTable() {
  addDbrx(*this);
  addDeepSeek(*this);
  addGptOss(*this);
  addGranite(*this);
  addLlama4(*this);
  addMixtral(*this);
  addQwen(*this);
  addSigmoid(*this);
  addSwitch(*this);
  llvm::sort(families,
             [](const auto &a, const auto &b) { return a.first < b.first; });
}

void FamilyTable::add(StringRef modelType, Family family) {
  families.emplace_back(modelType, std::move(family));
}

static Family wrap(Family family, ArrayRef<StringRef> sections,
                   ArrayRef<StringRef> prefixes) {
  static constexpr StringRef usual[] = {"language_model.model.layers.{n}.",
                                        "model.language_model.layers.{n}.",
                                        "language_model.layers.{n}."};
  family.sections.assign(sections.begin(), sections.end());
  family.prefixes.clear();
  for (StringRef prefix : prefixes.empty() ? ArrayRef(usual) : prefixes)
    family.prefixes.push_back(prefix.str());
  return family;
}

void FamilyTable::wrap(StringRef modelType, StringRef base,
                       ArrayRef<StringRef> sections,
                       ArrayRef<StringRef> prefixes) {
  // The table is not sorted yet.
  auto found = llvm::find_if(
      families, [&](const auto &entry) { return entry.first == base; });
  assert(found != families.end() && "a family is added before its wrapper");
  add(modelType, ::wrap(found->second, sections, prefixes));
}

Family FamilyTable::wrapped(StringRef base, StringRef section) const {
  return ::wrap(*find(base), section, {});
}

const Family *FamilyTable::find(StringRef modelType) const {
  auto found = llvm::lower_bound(
      families, modelType,
      [](const auto &entry, StringRef name) { return entry.first < name; });
  return found != families.end() && found->first == modelType ? &found->second
                                                              : nullptr;
}

std::vector<StringRef> FamilyTable::names() const {
  std::vector<StringRef> names;
  for (const auto &entry : families)
    names.push_back(entry.first);
  return names;
}

const FamilyTable &mlir::moe::importer::getFamilyTable() {
  static const FamilyTable table;
  return table;
}
