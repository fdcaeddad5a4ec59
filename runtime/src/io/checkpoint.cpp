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
    Expected<SafetensorsFile *> opened = shard(file);
    if (!opened)
      return opened.takeError();
    for (const auto &[name, view] : (*opened)->tensors()) {
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
  Expected<void> opened =
      files.empty() ? checkpoint.openIndex(file) : checkpoint.openFiles(files);
  if (!opened)
    return opened.takeError();
  return checkpoint;
}

Expected<SafetensorsFile *> Checkpoint::shard(const std::string &file) {
  auto position = shards.find(file);
  if (position == shards.end()) {
    Expected<SafetensorsFile> opened = SafetensorsFile::open(directory + file);
    if (!opened)
      return opened.takeError();
    position = shards.emplace(file, std::move(*opened)).first;
  }
  return &position->second;
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
  Expected<SafetensorsFile *> opened = shard(file);
  if (!opened)
    return opened.takeError().in("tensor '" + std::string(name) + "'");
  auto tensor = (*opened)->tensors().find(name);
  if (tensor == (*opened)->tensors().end())
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
