//===- object.cpp - Load a shared object from memory ----------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

// memfd_create, dladdr1 and dlinfo.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "artifact/object.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <fcntl.h>
#if defined(__linux__)
#include <link.h>
#include <sys/mman.h>
#endif
#include <unistd.h>

using namespace moe::rt;

#if defined(__linux__)
// What the host's objects have in e_machine.
#if defined(__x86_64__)
static constexpr uint16_t hostMachine = 62; // EM_X86_64
#elif defined(__aarch64__)
static constexpr uint16_t hostMachine = 183; // EM_AARCH64
#endif
#endif

moe_rt_status_t moe::rt::checkObject(const void *object, size_t size) {
#if defined(__linux__)
  // e_ident: magic, 64-bit, little-endian; then e_type (3: shared), e_machine.
  static constexpr uint8_t ident[] = {0x7f, 'E', 'L', 'F', 2, 1};
  static constexpr size_t headerSize = 64;
  const auto *bytes = static_cast<const uint8_t *>(object);
  if (size < headerSize || std::memcmp(bytes, ident, sizeof(ident)) != 0)
    return makeError(MOE_RT_DATA_LOSS,
                     "artifact does not start with a 64-bit little-endian ELF "
                     "object");
  uint16_t type, machine;
  std::memcpy(&type, bytes + 16, sizeof(type));
  std::memcpy(&machine, bytes + 18, sizeof(machine));
  if (type != 3)
    return makeError(MOE_RT_DATA_LOSS,
                     "artifact's object has ELF type %u, expected 3 (shared)",
                     type);
  if (machine != hostMachine)
    return makeError(MOE_RT_FAILED_PRECONDITION,
                     "artifact's object is for ELF machine %u, expected %u",
                     machine, hostMachine);
#else
  (void)object;
  (void)size;
#endif
  return nullptr;
}

static bool writeAll(int fd, const void *bytes, size_t size) {
  const auto *next = static_cast<const char *>(bytes);
  while (size > 0) {
    ssize_t count = write(fd, next, size);
    if (count < 0 && errno == EINTR)
      continue;
    if (count <= 0)
      return false;
    next += count;
    size -= static_cast<size_t>(count);
  }
  return true;
}

/// A file in the directory, and its path. It stays: a profiler reads the
/// symbols of an object from the file that was mapped, also when the process
/// has ended.
static int createNamedFile(const char *directory, char *path, size_t pathSize) {
  int length = std::snprintf(path, pathSize, "%s/moe-%ld-XXXXXX.so", directory,
                             static_cast<long>(getpid()));
  if (length < 0 || static_cast<size_t>(length) >= pathSize) {
    errno = ENAMETOOLONG;
    return -1;
  }
  return mkstemps(path, 3);
}

/// An unnamed file, and in `path` a name to open it by.
static int createFile(char *path, size_t pathSize) {
#if defined(__linux__)
  int fd = memfd_create("moe_artifact", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd >= 0)
    std::snprintf(path, pathSize, "/proc/self/fd/%d", fd);
  return fd;
#else
  std::snprintf(path, pathSize, "/tmp/moe_artifact.XXXXXX");
  return mkstemp(path);
#endif
}

moe_rt_status_t LoadedObject::load(const void *bytes, size_t size) {
  char path[4096];
  const char *directory = std::getenv("MOE_PERF_DIR");
  bool isNamed = directory && *directory;
  fd = isNamed ? createNamedFile(directory, path, sizeof(path))
               : createFile(path, sizeof(path));
  if (fd < 0 && isNamed)
    return makeError(MOE_RT_FAILED_PRECONDITION,
                     "cannot create a file in MOE_PERF_DIR '%s': %s", directory,
                     std::strerror(errno));
  if (fd < 0)
    return makeError(MOE_RT_RESOURCE_EXHAUSTED,
                     "cannot create a file in memory for the code: %s",
                     std::strerror(errno));
  if (!writeAll(fd, bytes, size))
    return makeError(MOE_RT_RESOURCE_EXHAUSTED,
                     "cannot keep %zu bytes of code in memory: %s", size,
                     std::strerror(errno));
#if defined(__linux__)
  if (!isNamed)
    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE);
#endif
  // The file stays open while the object is loaded: the loader knows objects
  // by their path, and a number that another artifact gets meanwhile would
  // yield this object again.
  handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  moe_rt_status_t status = nullptr;
  if (!handle) {
    const char *reason = dlerror();
    status = makeError(MOE_RT_FAILED_PRECONDITION,
                       "cannot load the artifact's code: %s",
                       reason ? reason : "unknown reason");
  }
#if !defined(__linux__)
  if (!isNamed)
    unlink(path);
#endif
  return status;
}

void *LoadedObject::find(const char *symbol) const {
  void *address = dlsym(handle, symbol);
#if defined(__linux__)
  // dlsym also searches what the object depends on: without this, metadata
  // could name any function of the C library.
  struct link_map *own = nullptr, *found = nullptr;
  Dl_info info;
  if (!address || dlinfo(handle, RTLD_DI_LINKMAP, &own) != 0 ||
      !dladdr1(address, &info, reinterpret_cast<void **>(&found),
               RTLD_DL_LINKMAP) ||
      own != found)
    return nullptr;
#endif
  return address;
}

size_t LoadedObject::sizeOf(const void *address) const {
#if defined(__linux__)
  ElfW(Sym) *symbol = nullptr;
  Dl_info info;
  if (!dladdr1(address, &info, reinterpret_cast<void **>(&symbol),
               RTLD_DL_SYMENT) ||
      !symbol || info.dli_saddr != address)
    return 0;
  return symbol->st_size;
#else
  (void)address;
  return SIZE_MAX;
#endif
}

LoadedObject::~LoadedObject() {
  if (handle)
    dlclose(handle);
  if (fd >= 0)
    close(fd);
}
