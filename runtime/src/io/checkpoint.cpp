//===- checkpoint.cpp - Tensors of a checkpoint by name -------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "support/json.h"

#include "moe_rt/io.h"

#include <algorithm>
#include <dirent.h>
#include <sys/stat.h>

using namespace moe;
using namespace moe::io;

static constexpr char fileEnd[] = ".safetensors";
static constexpr char ggufEnd[] = ".gguf";
static constexpr char singleFile[] = "model.safetensors";
static constexpr char indexFile[] = "model.safetensors.index.json";

static bool exists(const std::string &path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0;
}

static bool isDirectory(const std::string &path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

static bool endsWith(const std::string &text, std::string_view end) {
  return text.size() >= end.size() &&
         text.compare(text.size() - end.size(), end.size(), end) == 0;
}

/// Whether an index may name this file: one in its own directory.
static bool isPlainFileName(const std::string &name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find('/') == std::string::npos &&
         name.find('\\') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

Expected<std::map<std::string, std::string, std::less<>>>
Checkpoint::parseIndex(const char *text, uint64_t size) {
  json::Value root;
  std::string error;
  // Only names are read of it, so it does not matter which numbers these are.
  std::string plain = replaceNonFinite({text, size}, "0.0", "0.0");
  if (!json::parse(plain.data(), plain.size(), root, error))
    return Error{"invalid JSON: " + error};
  const json::Value *map = json::find(root, "weight_map");
  const auto *entries = json::asObject(map);
  if (!entries)
    return Error{"'weight_map' is " + std::string(json::describe(map)) +
                 ", expected an object"};
  std::map<std::string, std::string, std::less<>> result;
  for (const auto &[name, value] : *entries) {
    const std::string *file = json::asString(&value);
    if (name.find('\0') != std::string::npos)
      return Error{"tensor '" + name + "' has a NUL character in its name"};
    if (!file)
      return Error{"tensor '" + name + "' is in " +
                   std::string(json::describe(&value)) +
                   ", expected the name of a file"};
    if (!isPlainFileName(*file))
      return Error{"tensor '" + name + "' is in '" + *file +
                   "', expected the name of a file in the same directory"};
    result.emplace(name, *file);
  }
  return result;
}

/// The .safetensors files of a directory, sorted.
static std::vector<std::string> listFiles(const std::string &directory) {
  std::vector<std::string> files;
  DIR *stream = opendir(directory.c_str());
  if (!stream)
    return files;
  while (const dirent *entry = readdir(stream))
    if (endsWith(entry->d_name, fileEnd))
      files.push_back(entry->d_name);
  closedir(stream);
  std::sort(files.begin(), files.end());
  return files;
}

Expected<void> Checkpoint::openIndex(const std::string &file) {
  Expected<MappedFile> index = MappedFile::open(file);
  if (!index)
    return index.takeError();
  auto map = parseIndex(index->data(), index->size());
  if (!map)
    return Error{file + ": " + map.error(), ErrorKind::Damaged};
  shardOf = std::move(*map);
  return {};
}

Expected<void> Checkpoint::openFiles(const std::vector<std::string> &files) {
  for (const std::string &file : files) {
    Expected<Shard *> opened = shard(file);
    if (!opened)
      return opened.takeError();
    for (const auto &[name, view] : (*opened)->tensors) {
      auto [position, added] = shardOf.emplace(name, file);
      if (!added)
        return Error{root + ": tensor '" + name + "' is in '" +
                         position->second + "' and in '" + file +
                         "', expected an index or one of them",
                     ErrorKind::Damaged};
    }
  }
  return {};
}

//===----------------------------------------------------------------------===//
// Split .gguf files
//===----------------------------------------------------------------------===//

static constexpr char splitCount[] = "split.count";
static constexpr char splitNumber[] = "split.no";
static constexpr char splitTensors[] = "split.tensors.count";
static constexpr int64_t maxParts = 99999; // five digits

/// "-00001-of-00003.gguf".
static std::string partEnd(int64_t part, int64_t count) {
  auto digits = [](int64_t number) {
    std::string text = std::to_string(number);
    return std::string(5 - std::min<size_t>(5, text.size()), '0') + text;
  };
  return "-" + digits(part) + "-of-" + digits(count) + ggufEnd;
}

/// The files of which `file` is one; only that one if it is not split.
static Expected<std::vector<std::string>>
listParts(const std::string &file, const GgufMetadata &metadata) {
  std::vector<std::string> parts = {file};
  if (!metadata.contains(splitCount))
    return parts;
  Expected<int64_t> count = metadata.integer(splitCount);
  if (!count)
    return count.takeError();
  if (*count < 0 || *count > maxParts)
    return Error{std::string("key '") + splitCount + "' is " +
                 std::to_string(*count) + ", expected at most " +
                 std::to_string(maxParts)};
  if (*count <= 1)
    return parts;
  Expected<int64_t> number = metadata.integer(splitNumber);
  if (!number)
    return number.takeError();
  if (*number < 0 || *number >= *count)
    return Error{std::string("key '") + splitNumber + "' is " +
                 std::to_string(*number) + ", expected 0 to " +
                 std::to_string(*count - 1)};
  std::string end = partEnd(*number + 1, *count);
  if (!endsWith(file, end))
    return Error{"is part " + std::to_string(*number + 1) + " of " +
                 std::to_string(*count) + ", expected a name that ends in '" +
                 end + "'"};
  std::string name = file.substr(0, file.size() - end.size());
  parts.clear();
  for (int64_t part = 1; part <= *count; ++part)
    parts.push_back(name + partEnd(part, *count));
  return parts;
}

/// Check a key of a part.
static Expected<void> checkKey(const std::string &path,
                               const GgufMetadata &metadata, const char *key,
                               int64_t expected) {
  Expected<int64_t> found = metadata.integer(key);
  if (found && *found == expected)
    return {};
  std::string what = found ? std::string("key '") + key + "' is " +
                                 std::to_string(*found) + ", expected " +
                                 std::to_string(expected)
                           : found.error();
  return Error{path + ": " + what, ErrorKind::Damaged};
}

Expected<void> Checkpoint::openParts(const std::vector<std::string> &parts) {
  auto count = static_cast<int64_t>(parts.size());
  for (int64_t part = 0; part < count; ++part) {
    const std::string &file = parts[static_cast<size_t>(part)];
    Expected<Shard *> opened = shard(file);
    if (!opened)
      return opened.takeError();
    const GgufMetadata &metadata = (*opened)->metadata;
    for (auto [key, expected] :
         {std::pair(splitCount, count), std::pair(splitNumber, part)})
      if (auto result = checkKey(directory + file, metadata, key, expected);
          !result)
        return result;
  }
  if (Expected<void> result = openFiles(parts); !result)
    return result;
  if (!metadata().contains(splitTensors))
    return {};
  return checkKey(directory + parts[0], metadata(), splitTensors,
                  static_cast<int64_t>(shardOf.size()));
}

Expected<void> Checkpoint::openFile(const std::string &file) {
  Expected<Shard *> opened = shard(file);
  if (!opened)
    return opened.takeError();
  auto parts = listParts(file, (*opened)->metadata);
  if (!parts)
    return Error{directory + file + ": " + parts.error(), ErrorKind::Damaged};
  metadataFile = parts->front();
  return parts->size() > 1 ? openParts(*parts) : openFiles(*parts);
}

const GgufMetadata &Checkpoint::metadata() const {
  static const GgufMetadata none;
  auto position = shards.find(metadataFile);
  return position == shards.end() ? none : position->second.metadata;
}

//===----------------------------------------------------------------------===//
// Checkpoints
//===----------------------------------------------------------------------===//

Expected<Checkpoint> Checkpoint::open(const std::string &path) {
  Checkpoint checkpoint;
  checkpoint.root = path;
  std::string file = path;
  std::vector<std::string> files;
  if (isDirectory(path)) {
    checkpoint.directory = path + "/";
    file = checkpoint.directory + indexFile;
    if (exists(checkpoint.directory + singleFile))
      files = {singleFile};
    else if (!exists(file))
      files = listFiles(path);
    if (files.empty() && !exists(file))
      return Error{path + ": neither " + singleFile + " nor " + indexFile +
                       " is in this directory, nor another " + fileEnd +
                       " file",
                   ErrorKind::NotFound};
  } else {
    size_t slash = path.rfind('/');
    if (slash != std::string::npos)
      checkpoint.directory = path.substr(0, slash + 1);
    if (!endsWith(file, ".index.json"))
      files = {path.substr(checkpoint.directory.size())};
  }
  Expected<void> opened = files.empty()       ? checkpoint.openIndex(file)
                          : isDirectory(path) ? checkpoint.openFiles(files)
                                              : checkpoint.openFile(files[0]);
  if (!opened)
    return opened.takeError();
  return checkpoint;
}

Expected<Checkpoint::Shard *> Checkpoint::shard(const std::string &file) {
  auto position = shards.find(file);
  if (position != shards.end())
    return &position->second;
  std::string path = directory + file;
  Expected<MappedFile> mapped = MappedFile::open(path);
  if (!mapped)
    return mapped.takeError();
  const char *data = mapped->data();
  uint64_t size = mapped->size();
  Shard opened = {std::move(*mapped), {}, {}};
  if (endsWith(file, ggufEnd) || GgufFile::hasMagic(data, size)) {
    Expected<GgufFile::Content> content = GgufFile::parse(data, size);
    if (!content)
      return Error{path + ": " + content.error(), ErrorKind::Damaged};
    opened.tensors = std::move(content->tensors);
    opened.metadata = std::move(content->metadata);
  } else {
    Expected<TensorMap> tensors = SafetensorsFile::parse(data, size);
    if (!tensors)
      return Error{path + ": " + tensors.error(), ErrorKind::Damaged};
    opened.tensors = std::move(*tensors);
  }
  return &shards.emplace(file, std::move(opened)).first->second;
}

bool Checkpoint::contains(std::string_view name) const {
  return shardOf.find(name) != shardOf.end();
}

std::vector<std::string> Checkpoint::names() const {
  std::vector<std::string> result;
  for (const auto &[name, file] : shardOf)
    result.push_back(name);
  return result;
}

Expected<Checkpoint::Entry> Checkpoint::find(std::string_view name) {
  auto position = shardOf.find(name);
  if (position == shardOf.end())
    return Error{root + ": there is no tensor '" + std::string(name) + "'",
                 ErrorKind::NotFound};
  const std::string &file = position->second;
  Expected<Shard *> opened = shard(file);
  if (!opened)
    return opened.takeError().in("tensor '" + std::string(name) + "'");
  auto tensor = (*opened)->tensors.find(name);
  if (tensor == (*opened)->tensors.end())
    return Error{directory + file + ": there is no tensor '" +
                     std::string(name) + "', which the index says is here",
                 ErrorKind::Damaged};
  return &*tensor;
}

Expected<TensorView> Checkpoint::lookup(std::string_view name) {
  Expected<Entry> found = find(name);
  if (!found)
    return found.takeError();
  return (*found)->second;
}
