//===- segments.cpp - Memory that ranks of a machine share ----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Segments are files of memfd_create, which others open as /proc/PID/fd/FILE:
// unlike names of shm_open, nothing of a killed process stays, and the size of
// /dev/shm, which is small in containers, is no limit.
//
//===----------------------------------------------------------------------===//

#include "parallel/windows/segments.h"
#include "support/buffer.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

using namespace moe::rt;

static constexpr char fileName[] = "moe_rows";
static constexpr uint64_t smallPage = 4096;

static int32_t fileOf(int64_t name) {
  return static_cast<int32_t>(name & INT32_MAX);
}

/// A hash of a short file or the target of a link; 0 if there is none.
static int64_t hashOf(const char *path, bool isLink) {
  char text[128];
  ssize_t length = -1;
  if (isLink) {
    length = readlink(path, text, sizeof(text));
  } else if (int file = ::open(path, O_RDONLY | O_CLOEXEC); file >= 0) {
    length = read(file, text, sizeof(text));
    close(file);
  }
  uint64_t hash = 14695981039346656037u; // FNV-1a
  for (ssize_t i = 0; i < length; ++i)
    hash = (hash ^ static_cast<unsigned char>(text[i])) * 1099511628211u;
  return length <= 0 ? 0 : static_cast<int64_t>(hash);
}

/// Map a file, at a multiple of a huge page if it has one: only then can both
/// have it. Null with errno.
static char *map(int file, uint64_t bytes, int access) {
  if (bytes < hugePage) {
    void *memory = mmap(nullptr, bytes, access, MAP_SHARED, file, 0);
    return memory == MAP_FAILED ? nullptr : static_cast<char *>(memory);
  }
  void *found = mmap(nullptr, bytes + hugePage, PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (found == MAP_FAILED)
    return nullptr;
  char *begin = static_cast<char *>(found);
  const uint64_t before = -reinterpret_cast<uintptr_t>(begin) & (hugePage - 1);
  char *memory = begin + before;
  if (mmap(memory, bytes, access, MAP_SHARED | MAP_FIXED, file, 0) ==
      MAP_FAILED) {
    munmap(begin, bytes + hugePage);
    return nullptr;
  }
  if (before > 0)
    munmap(begin, before);
  munmap(memory + bytes, hugePage - before);
  (void)madvise(memory, bytes, MADV_HUGEPAGE);
  return memory;
}

Segments::~Segments() {
  if (probe)
    release(probe);
  for (const auto &files : seen)
    for (const auto &[file, segment] : files)
      munmap(segment.begin, segment.bytes);
}

bool Segments::describe(Words &out) {
  probe = allocate(smallPage);
  // A number of a process and a file may mean another one elsewhere.
  int64_t secret;
  if (!probe || getrandom(&secret, sizeof(secret), 0) !=
                    static_cast<ssize_t>(sizeof(secret)))
    return false;
  std::memcpy(probe, &secret, sizeof(secret));
  out = {hashOf("/proc/sys/kernel/random/boot_id", false),
         hashOf("/proc/self/ns/pid", true), getpid(), share(probe).segment,
         secret};
  return out[0] != 0 && out[1] != 0;
}

bool Segments::meet(size_t rank, const Words &words, std::string &why) {
  if (words[0] != hashOf("/proc/sys/kernel/random/boot_id", false) ||
      words[1] != hashOf("/proc/self/ns/pid", true)) {
    why = "is on another machine or in another container";
    return false;
  }
  processes[rank] = words[2];
  const char *found = open(rank, {words[3], 0}, sizeof(int64_t));
  if (!found) {
    why = "has memory that cannot be mapped here: ";
    why += std::strerror(errno);
    return false;
  }
  int64_t secret;
  std::memcpy(&secret, found, sizeof(secret));
  if (secret == words[4])
    return true;
  why = "has other memory than it says";
  return false;
}

void *Segments::allocate(uint64_t bytes) {
  if (bytes == 0 || bytes > static_cast<uint64_t>(INT64_MAX) - hugePage)
    return nullptr;
  const uint64_t page = bytes < hugePage ? smallPage : hugePage;
  bytes = (bytes + page - 1) / page * page;
  int file = memfd_create(fileName, MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (file < 0)
    return nullptr;
  // Readers never see it end before it does.
  char *memory = nullptr;
  if (ftruncate(file, static_cast<off_t>(bytes)) == 0 &&
      fcntl(file, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0)
    memory = map(file, bytes, PROT_READ | PROT_WRITE);
  if (!memory) {
    close(file);
    return nullptr;
  }
  own[memory] = {file, bytes, (++count << 32) | file};
  return memory;
}

void Segments::release(void *memory) {
  auto found = own.find(static_cast<const char *>(memory));
  if (found == own.end())
    return;
  munmap(memory, found->second.bytes);
  close(found->second.file);
  own.erase(found);
  if (memory == probe)
    probe = nullptr;
}

Window Segments::share(const void *address) const {
  const char *place = static_cast<const char *>(address);
  auto after = own.upper_bound(place);
  if (after == own.begin())
    return {-1, 0};
  const auto &[begin, segment] = *std::prev(after);
  return {segment.name, place - begin};
}

const char *Segments::open(size_t rank, const Window &window, uint64_t bytes) {
  errno = EINVAL;
  if (window.segment <= 0 || window.offset < 0)
    return nullptr;
  auto inside = [&](const Seen &segment) -> const char * {
    auto offset = static_cast<uint64_t>(window.offset);
    return offset <= segment.bytes && bytes <= segment.bytes - offset
               ? segment.begin + offset
               : nullptr;
  };
  std::map<int32_t, Seen> &files = seen[rank];
  if (auto found = files.find(fileOf(window.segment)); found != files.end()) {
    if (found->second.name == window.segment)
      return inside(found->second);
    munmap(found->second.begin, found->second.bytes);
    files.erase(found);
  }
  const std::string path = "/proc/" + std::to_string(processes[rank]) + "/fd/" +
                           std::to_string(fileOf(window.segment));
  // Nothing else is opened: that of another process could have effects.
  char target[64] = {};
  if (readlink(path.c_str(), target, sizeof(target) - 1) < 0)
    return nullptr;
  const std::string expected = std::string("/memfd:") + fileName;
  if (std::strncmp(target, expected.c_str(), expected.size()) != 0) {
    errno = EINVAL;
    return nullptr;
  }
  int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0)
    return nullptr;
  struct stat status;
  char *memory = nullptr;
  if (fstat(file, &status) == 0 && status.st_size > 0)
    memory = map(file, static_cast<uint64_t>(status.st_size), PROT_READ);
  close(file);
  if (!memory)
    return nullptr;
  Seen &segment = files[fileOf(window.segment)];
  segment = {window.segment, memory, static_cast<uint64_t>(status.st_size)};
  errno = EINVAL;
  return inside(segment);
}
