//===- cgroup.cpp - Limits of the process's cgroups -----------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "support/cgroup.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <string_view>
#include <vector>

using namespace moe::rt;

/// Empty if there is no such file. Files of the kernel do not tell their size.
static std::string readFile(const std::string &path) {
  std::string text;
  std::FILE *file = std::fopen(path.c_str(), "re");
  if (!file)
    return text;
  char buffer[4096];
  while (size_t count = std::fread(buffer, 1, sizeof(buffer), file))
    text.append(buffer, count);
  std::fclose(file);
  return text;
}

/// The parts of a text between separators.
static std::vector<std::string_view> split(std::string_view text,
                                           char separator) {
  std::vector<std::string_view> parts;
  for (;;) {
    size_t end = text.find(separator);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos)
      return parts;
    text.remove_prefix(end + 1);
  }
}

static bool contains(const std::vector<std::string_view> &parts,
                     std::string_view part) {
  return std::find(parts.begin(), parts.end(), part) != parts.end();
}

/// The number at the start of a text.
static std::optional<int64_t> parseNumber(std::string_view text) {
  int64_t number;
  auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc())
    return std::nullopt;
  return number;
}

/// A path of a mount, in which the kernel writes blanks and the like as \040.
static std::string unescape(std::string_view text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    auto digit = [&](size_t offset) {
      return i + offset < text.size() && text[i + offset] >= '0' &&
                     text[i + offset] <= '7'
                 ? text[i + offset] - '0'
                 : -1;
    };
    int high = digit(1), middle = digit(2), low = digit(3);
    if (text[i] == '\\' && high >= 0 && middle >= 0 && low >= 0) {
      result += static_cast<char>(high << 6 | middle << 3 | low);
      i += 3;
    } else {
      result += text[i];
    }
  }
  return result;
}

/// The path of a group below the root of its mount: "" if that is not where the
/// group is, or if it is outside of what this process sees.
static std::string_view pathBelow(std::string_view root,
                                  std::string_view path) {
  if (root == "/")
    root = "";
  if (path.substr(0, root.size()) != root)
    return "";
  path.remove_prefix(root.size());
  if (path == "/" || (!path.empty() && path[0] != '/') ||
      contains(split(path, '/'), ".."))
    return "";
  return path;
}

/// What one group allows.
static std::optional<int64_t> limitOf(const std::string &directory,
                                      bool isVersion2) {
  std::optional<int64_t> quota, period;
  if (isVersion2) {
    std::string text = readFile(directory + "/cpu.max"); // "max 100000"
    std::vector<std::string_view> parts = split(text, ' ');
    if (parts.size() < 2)
      return std::nullopt;
    quota = parseNumber(parts[0]);
    period = parseNumber(parts[1]);
  } else {
    quota = parseNumber(readFile(directory + "/cpu.cfs_quota_us")); // or -1
    period = parseNumber(readFile(directory + "/cpu.cfs_period_us"));
  }
  if (!quota || !period || *quota <= 0 || *period <= 0)
    return std::nullopt;
  return *quota / *period + (*quota % *period > 0);
}

/// The least of a group and those around it, up to where they are mounted.
static std::optional<int64_t> leastLimit(const std::string &mountPoint,
                                         std::string path, bool isVersion2) {
  std::optional<int64_t> least;
  for (;;) {
    std::optional<int64_t> limit = limitOf(mountPoint + path, isVersion2);
    if (limit && (!least || *limit < *least))
      least = limit;
    if (path.empty())
      return least;
    path.erase(path.rfind('/'));
  }
}

std::optional<int64_t> moe::rt::cgroupProcessors(const CgroupFiles &files) {
  // "0::/a/b" for version 2, "4:cpu,cpuacct:/a/b" for version 1.
  std::string groups = readFile(files.groups), mounts = readFile(files.mounts);
  std::optional<std::string_view> pathOf[2];
  for (std::string_view line : split(groups, '\n')) {
    size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string_view::npos)
      continue;
    std::string_view names = line.substr(first + 1, second - first - 1);
    if (names.empty() || contains(split(names, ','), "cpu"))
      pathOf[names.empty()] = line.substr(second + 1);
  }
  // "31 23 0:28 ROOT POINT rw shared:1 - TYPE source rw,cpu"; there may be any
  // number of fields before the dash.
  std::optional<int64_t> least;
  for (std::string_view line : split(mounts, '\n')) {
    std::vector<std::string_view> fields = split(line, ' ');
    auto dash = std::find(fields.begin(), fields.end(), "-");
    if (dash - fields.begin() < 6 || fields.end() - dash < 4)
      continue;
    bool isVersion2 = dash[1] == "cgroup2";
    if (!isVersion2 &&
        (dash[1] != "cgroup" || !contains(split(dash[3], ','), "cpu")))
      continue;
    if (!pathOf[isVersion2])
      continue;
    std::string root = unescape(fields[3]);
    std::optional<int64_t> limit = leastLimit(
        unescape(fields[4]), std::string(pathBelow(root, *pathOf[isVersion2])),
        isVersion2);
    if (limit && (!least || *limit < *least))
      least = limit;
  }
  return least;
}
