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
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

using namespace moe::rt;

static constexpr uint64_t smallPage = 4096;

/// The name of the file of a segment, that no other one has.
static std::string nameOf(int64_t secret, int64_t segment) {
  char text[64];
  std::snprintf(text, sizeof(text), "moe_rows_%016" PRIx64 "_%" PRId64,
                static_cast<uint64_t>(secret), segment >> 32);
  return text;
}

/// Whether a link of /proc is to the file of that name.
static bool isLinkTo(const std::string &path, const std::string &name) {
  char target[128];
  ssize_t length = readlink(path.c_str(), target, sizeof(target));
  if (length < 0)
    return false;
  errno = EINVAL;
  return "/memfd:" + name + " (deleted)" ==
         std::string(target, static_cast<size_t>(length));
}

static int32_t fileOf(int64_t name) {
  return static_cast<int32_t>(name & INT32_MAX);
}

/// The most bytes of a file: one that would be larger is a signal that ends
/// the process (SIGXFSZ).
static uint64_t fileLimit() {
  rlimit limit;
  return getrlimit(RLIMIT_FSIZE, &limit) == 0 ? limit.rlim_cur : 0;
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
  // How large rows become is not known.
  if (fileLimit() != RLIM_INFINITY)
    return false;
  if (getrandom(&secret, sizeof(secret), 0) !=
      static_cast<ssize_t>(sizeof(secret)))
    return false;
  probe = allocate(smallPage);
  if (!probe)
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
  others[rank] = {words[2], words[4]};
  const char *found = open(rank, {words[3], 0}, sizeof(int64_t));
  if (!found) {
    why = "has memory that cannot be mapped here: ";
    why += std::strerror(errno);
    return false;
  }
  int64_t word;
  std::memcpy(&word, found, sizeof(word));
  if (word == words[4])
    return true;
  why = "has other memory than it says";
  return false;
}

void *Segments::allocate(uint64_t bytes) {
  if (bytes == 0 || bytes > static_cast<uint64_t>(INT64_MAX) - hugePage)
    return nullptr;
  const uint64_t page = bytes < hugePage ? smallPage : hugePage;
  bytes = (bytes + page - 1) / page * page;
  if (bytes > fileLimit())
    return nullptr;
  const int64_t name = ++count << 32;
  int file = memfd_create(nameOf(secret, name).c_str(),
                          MFD_CLOEXEC | MFD_ALLOW_SEALING);
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
  own[memory] = {file, bytes, name | file};
  return memory;
}

void Segments::release(void *memory) {
  auto found = own.find(static_cast<const char *>(memory));
  if (found == own.end())
    return;
  // Nobody needs the pages any more: who still reads has lost this rank. They
  // are not those of a copy of this process.
  if (getpid() == process)
    (void)madvise(memory, found->second.bytes, MADV_REMOVE);
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
  const Other &other = others[rank];
  const std::string path = "/proc/" + std::to_string(other.process) + "/fd/" +
                           std::to_string(fileOf(window.segment));
  const std::string name = nameOf(other.secret, window.segment);
  // Nothing else is opened: that of another process could have effects.
  if (!isLinkTo(path, name))
    return nullptr;
  int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0)
    return nullptr;
  struct stat status;
  char *memory = nullptr;
  const int seals = fcntl(file, F_GET_SEALS);
  if (seals >= 0 && (seals & F_SEAL_SHRINK) != 0 &&
      isLinkTo("/proc/self/fd/" + std::to_string(file), name) &&
      fstat(file, &status) == 0 && status.st_size > 0)
    memory = map(file, static_cast<uint64_t>(status.st_size), PROT_READ);
  close(file);
  if (!memory)
    return nullptr;
  Seen &segment = files[fileOf(window.segment)];
  segment = {window.segment, memory, static_cast<uint64_t>(status.st_size)};
  errno = EINVAL;
  return inside(segment);
}
