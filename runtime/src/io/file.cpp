//===- file.cpp - Map and write files -------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe_rt/io.h"

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

using namespace moe::io;

static Error systemError(const std::string &path, const char *what) {
  ErrorKind kind = errno == ENOENT || errno == ENOTDIR ? ErrorKind::NotFound
                   : errno == ENOMEM                   ? ErrorKind::NoMemory
                                                       : ErrorKind::Invalid;
  return Error{path + ": cannot " + what + ": " + std::strerror(errno), kind};
}

Expected<MappedFile> MappedFile::open(const std::string &path) {
  // O_NONBLOCK: opening a pipe must not wait for its other end.
  int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0)
    return systemError(path, "open");
  struct stat info;
  if (fstat(fd, &info) != 0) {
    Error error = systemError(path, "read");
    close(fd);
    return error;
  }
  if (!S_ISREG(info.st_mode)) {
    close(fd);
    return Error{path + ": not a regular file"};
  }
  MappedFile file;
  file.length = static_cast<uint64_t>(info.st_size);
  if (file.length > 0) { // an empty mapping is an error
    void *address = mmap(nullptr, file.length, PROT_READ, MAP_PRIVATE, fd, 0);
    if (address == MAP_FAILED) {
      Error error = systemError(path, "map");
      file.length = 0;
      close(fd);
      return error;
    }
    file.address = static_cast<const char *>(address);
  }
  close(fd);
  return file;
}

MappedFile::MappedFile(MappedFile &&other) noexcept
    : address(std::exchange(other.address, nullptr)),
      length(std::exchange(other.length, 0)) {}

MappedFile &MappedFile::operator=(MappedFile &&other) noexcept {
  std::swap(address, other.address);
  std::swap(length, other.length);
  return *this;
}

MappedFile::~MappedFile() {
  if (address)
    munmap(const_cast<char *>(address), length);
}

void moe::io::dropMappedPages(const void *begin, uint64_t size) {
  // Those on the edge hold something else, too.
  auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  auto address = reinterpret_cast<uintptr_t>(begin);
  uintptr_t first = (address + page - 1) / page * page;
  uintptr_t end = (address + size) / page * page;
  if (first < end)
    (void)madvise(reinterpret_cast<void *>(first), end - first, MADV_DONTNEED);
}

static bool writeAll(int fd, const void *data, uint64_t size) {
  const auto *next = static_cast<const char *>(data);
  while (size > 0) {
    ssize_t count = write(fd, next, size);
    if (count < 0 && errno == EINTR)
      continue;
    if (count < 0)
      return false;
    next += count;
    size -= static_cast<uint64_t>(count);
  }
  return true;
}

Expected<void> moe::io::writeFileAtomically(
    const std::string &path,
    const std::vector<std::pair<const void *, uint64_t>> &parts) {
  // A rename would replace a device or a pipe by a file.
  struct stat info;
  if (stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode))
    return Error{path + ": not a regular file"};

  // Not mkstemp, which ignores the umask.
  static std::atomic<unsigned> counter{0};
  std::string temporary;
  int fd = -1;
  for (int attempt = 0; fd < 0 && attempt < 100; ++attempt) {
    temporary = path + ".tmp." + std::to_string(getpid()) + "." +
                std::to_string(counter++);
    fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC,
                0666);
    if (fd < 0 && errno != EEXIST)
      break;
  }
  if (fd < 0)
    return systemError(path, "create");
  bool written = true;
  for (const auto &[data, size] : parts)
    written = written && writeAll(fd, data, size);
  int failure = errno;
  if (close(fd) != 0 && written) {
    written = false;
    failure = errno;
  }
  if (written && std::rename(temporary.c_str(), path.c_str()) == 0)
    return {};
  if (written)
    failure = errno;
  unlink(temporary.c_str());
  errno = failure;
  return systemError(path, "write");
}
