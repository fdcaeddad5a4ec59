//===- inputs.cpp - Input tensors -----------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "inputs.h"

#include <cstring>

using namespace moe;
using namespace moe::run;
using moe::io::Error;
using moe::io::Expected;
using moe::io::Tensor;

static bool isSafetensors(const std::string &path) {
  static constexpr std::string_view end = ".safetensors";
  return path.size() >= end.size() &&
         path.compare(path.size() - end.size(), end.size(), end) == 0;
}

static std::string listNames(const std::vector<Signature> &signature) {
  std::string names;
  for (const Signature &entry : signature)
    names += (names.empty() ? "" : ", ") + entry.name;
  return names.empty() ? "none" : names;
}

Expected<std::vector<std::string>>
moe::run::assignFiles(const char *option,
                      const std::vector<std::string> &values,
                      const std::vector<Signature> &signature) {
  std::vector<std::string> files(signature.size());
  std::string forAll;
  size_t next = 0;
  for (const std::string &value : values) {
    auto [name, file] = splitNamed(value);
    if (!name.empty()) {
      size_t index = 0;
      while (index < signature.size() && signature[index].name != name)
        ++index;
      if (index == signature.size())
        return Error{std::string(option) + " " + value + ": there is no '" +
                     name + "', expected one of: " + listNames(signature)};
      if (!files[index].empty())
        return Error{std::string(option) + " " + value + ": '" + name +
                     "' is already given as " + files[index]};
      files[index] = file;
      continue;
    }
    if (isSafetensors(value)) {
      forAll = value;
      continue;
    }
    while (next < files.size() && !files[next].empty())
      ++next;
    if (next == files.size())
      return Error{std::string(option) + " " + value +
                   ": too many, the signature has: " + listNames(signature)};
    files[next] = value;
  }
  if (!forAll.empty())
    for (std::string &file : files)
      if (file.empty())
        file = forAll;
  return files;
}

Expected<Tensor> moe::run::readTensor(const std::string &path,
                                      const std::string &name) {
  if (!isSafetensors(path))
    return io::readNpy(path);
  Expected<io::SafetensorsFile> file = io::SafetensorsFile::open(path);
  if (!file)
    return file.takeError();
  auto found = file->tensors().find(name);
  if (found == file->tensors().end())
    return Error{path + ": there is no tensor '" + name + "'"};
  const io::TensorView &view = found->second;
  Expected<Tensor> tensor = Tensor::create(view.dtype, view.shape);
  if (tensor && view.bytes > 0)
    std::memcpy(tensor->data(), view.data, view.bytes);
  return tensor;
}

/// The part of an input that is for one of several ranks: all are equal, but
/// for one token.
static Expected<Tensor> takeShare(Tensor whole, const Signature &signature,
                                  const Ranks *ranks) {
  const std::vector<int64_t> &shape = whole.shape();
  // An input of another shape is an error of the call.
  if (!ranks || signature.shape.empty() || signature.shape[0] >= 0 ||
      shape.size() != signature.shape.size() || shape[0] == 0)
    return whole;
  auto size = static_cast<int64_t>(ranks->size());
  auto rank = static_cast<int64_t>(ranks->rank());
  auto beginOf = [&](int64_t rank) {
    return shape[0] / size * rank + shape[0] % size * rank / size;
  };
  int64_t begin = beginOf(rank), end = beginOf(rank + 1);
  uint64_t rowBytes = whole.bytes() / static_cast<uint64_t>(shape[0]);
  std::vector<int64_t> own = shape;
  own[0] = end - begin;
  Expected<Tensor> share =
      Tensor::create(whole.dtype(), own, signature.alignment);
  if (share && share->bytes() > 0)
    std::memcpy(share->data(),
                static_cast<const char *>(whole.data()) +
                    static_cast<uint64_t>(begin) * rowBytes,
                share->bytes());
  return share;
}

/// Writes the number of the rank for {rank} in the name of a file; returns
/// whether there was one.
static bool insertRank(std::string &file, const Ranks *ranks) {
  static const std::string place = "{rank}";
  size_t found = file.find(place);
  if (!ranks || found == std::string::npos)
    return false;
  for (; found != std::string::npos; found = file.find(place))
    file.replace(found, place.size(), std::to_string(ranks->rank()));
  return true;
}

Expected<std::vector<Tensor>>
moe::run::readInputs(const Program &program,
                     const std::vector<std::string> &values) {
  const std::vector<Signature> &signature = program.inputs();
  Expected<std::vector<std::string>> files =
      assignFiles("--input", values, signature);
  if (!files)
    return files.takeError();
  std::vector<Tensor> inputs;
  std::optional<bool> isOwn; // of this rank
  const Ranks *sharing = program.isReplicated() ? nullptr : program.ranks();
  for (size_t i = 0; i < signature.size(); ++i) {
    bool hasRank = insertRank((*files)[i], program.ranks());
    bool hasTokens = !signature[i].shape.empty() && signature[i].shape[0] < 0;
    if (hasTokens && isOwn.value_or(hasRank) != hasRank)
      return Error{"--input: '" + signature[i].name + "' is of " +
                   (hasRank ? "one rank and another input of all"
                            : "all ranks and another input of one") +
                   ", expected {rank} in the names of all or of none"};
    if (hasTokens)
      isOwn = hasRank;
    if ((*files)[i].empty())
      return Error{"input '" + signature[i].name + "' of type " +
                   io::typeName(signature[i].dtype, signature[i].shape) +
                   " is not given"};
    Expected<Tensor> tensor = readTensor((*files)[i], signature[i].name);
    if (tensor && !hasRank)
      tensor = takeShare(std::move(*tensor), signature[i], sharing);
    if (!tensor)
      return tensor.takeError();
    inputs.push_back(std::move(*tensor));
  }
  return inputs;
}

/// Draws expert ids, distinct within each row if there are enough experts.
static void drawIds(const Tensor &tensor, int64_t numExperts, uint64_t seed) {
  const std::vector<int64_t> &shape = tensor.shape();
  uint64_t count = 1;
  for (int64_t extent : shape)
    count *= static_cast<uint64_t>(extent);
  if (count == 0)
    return;
  auto experts = static_cast<uint64_t>(numExperts);
  uint64_t row = shape.empty() ? 1 : static_cast<uint64_t>(shape.back());
  bool distinct = row <= experts;
  io::TensorView view = tensor.view();
  uint64_t drawn = 0;
  for (uint64_t i = 0; i < count; ++i) {
    bool repeated;
    do {
      auto id = static_cast<double>(io::randomBits(seed, drawn++) % experts);
      io::writeElement(tensor, i, id);
      repeated = false;
      for (uint64_t j = i - i % row; distinct && j < i; ++j)
        repeated |= io::readElement(view, j) == id;
    } while (repeated);
  }
}

static void drawTensor(const Tensor &tensor, const Signature &signature,
                       uint64_t seed) {
  if (signature.numExperts > 0)
    return drawIds(tensor, signature.numExperts, seed);
  if (io::fillNormal(tensor, seed, 1.0))
    return;
  std::memset(tensor.data(), 0, tensor.bytes());
  if (signature.dtype.code != kDLUInt)
    return; // not ids; zero is always valid
  auto *bytes = static_cast<unsigned char *>(tensor.data());
  for (uint64_t i = 0; i < tensor.bytes(); ++i)
    bytes[i] = io::randomBits(seed, i) & 1;
}

Expected<std::vector<Tensor>>
moe::run::drawInputs(const Program &program, int64_t tokens, uint64_t seed) {
  std::vector<Tensor> inputs;
  const Ranks *sharing = program.isReplicated() ? nullptr : program.ranks();
  for (const Signature &signature : program.inputs()) {
    Expected<Tensor> tensor = Tensor::create(
        signature.dtype, signature.shapeFor(tokens), signature.alignment);
    if (!tensor)
      return Error{"input '" + signature.name + "': " + tensor.error()};
    drawTensor(*tensor, signature, io::mixSeed(seed, signature.name));
    tensor = takeShare(std::move(*tensor), signature, sharing);
    if (!tensor)
      return tensor.takeError();
    inputs.push_back(std::move(*tensor));
  }
  return inputs;
}

std::optional<int64_t> moe::run::findTokens(const Program &program,
                                            const std::vector<Tensor> &inputs) {
  for (size_t i = 0; i < inputs.size(); ++i) {
    const std::vector<int64_t> &shape = program.inputs()[i].shape;
    if (shape.size() != inputs[i].shape().size())
      continue;
    for (size_t j = 0; j < shape.size(); ++j)
      if (shape[j] < 0)
        return inputs[i].shape()[j];
  }
  return std::nullopt;
}
