//===- driver.h - The state of the driver -----------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The objects behind the handles of the driver API. One lock guards all of
// them; every exported function takes it and converts faults to CUresult.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_CUDA_DOUBLE_DRIVER_H
#define MOE_CUDA_DOUBLE_DRIVER_H

#include "cuda_abi.h"
#include "machine/fault.h"
#include "machine/log.h"
#include "machine/machine.h"
#include "machine/memory/device_memory.h"
#include "machine/settings.h"

#include <chrono>
#include <mutex>
#include <set>
#include <thread>

namespace moe::gpu {

/// An operation of a stream: a launch, or anything else. As the node of a graph
/// it may run more than once.
struct Action {
  std::function<void()> run; // unless it is a launch
  std::shared_ptr<const LaunchConfig> launch;

  template <typename Body,
            typename = std::enable_if_t<std::is_invocable_v<Body>>>
  Action(Body body) : run(std::move(body)) {}
  explicit Action(LaunchConfig config)
      : launch(std::make_shared<LaunchConfig>(std::move(config))) {}
};

/// A position in a stream: after its first `count` operations.
struct StreamPosition {
  CUstream stream;
  uint64_t count;
};

struct Work {
  Action action;
  std::vector<StreamPosition> after;
};

/// A graph into which streams are being captured.
struct Capture {
  CUstream origin;
  CUstreamCaptureMode mode;
  std::thread::id thread;
  bool invalidated = false;
  std::vector<Action> nodes;
  /// A stream that joined the capture by an event: the number of nodes up to
  /// its last one, and up to the last one that the origin stream waited for.
  struct Branch {
    size_t last = 0, joined = 0;
  };
  std::map<CUstream, Branch> branches;
};

} // namespace moe::gpu

struct CUctx_st {
  CUdevice device = 0;
  bool primary = false;
  int retained = 0;
  bool alive = true;
  CUresult error = CUDA_SUCCESS; // sticky
  CUstream legacy = nullptr, perThread = nullptr;
};

struct CUmod_st {
  CUcontext context;
  std::unique_ptr<moe::gpu::Module> module;
  std::map<std::string, std::unique_ptr<CUfunc_st>, std::less<>> functions;
  std::vector<uint64_t> memory; // allocations of its variables
};

struct CUfunc_st {
  CUmodule module;
  const moe::gpu::Function *function;
  moe::gpu::SharedLayout layout;
  int maxDynamicShared = 0;
  bool nonPortableCluster = false;
};

struct CUstream_st {
  CUcontext context;
  bool blocking; // implicitly synchronizes with the legacy stream
  std::deque<moe::gpu::Work> queue;
  std::vector<moe::gpu::StreamPosition>
      waits; // dependencies of the next operation
  uint64_t done = 0;
  std::shared_ptr<moe::gpu::Capture> capture;

  uint64_t enqueued() const { return done + queue.size(); }
};

struct CUevent_st {
  CUcontext context;
  bool timing;
  bool recorded = false;
  moe::gpu::StreamPosition position = {nullptr, 0};
  std::shared_ptr<double> milliseconds; // the time of the record
  // Recorded in a captured stream: the number of nodes before it.
  std::shared_ptr<moe::gpu::Capture> capture;
  size_t node = 0;
  CUstream captureStream = nullptr;
};

struct CUgraph_st {
  CUcontext context;
  std::vector<moe::gpu::Action> nodes;
};

struct CUgraphExec_st {
  CUcontext context;
  std::vector<moe::gpu::Action> nodes;
};

namespace moe::gpu {

class Driver {
public:
  Settings settings;
  Log log;
  bool initialised = false;
  std::string message; // of the last failure
  uint64_t launches = 0, instructions = 0;
  std::vector<std::unique_ptr<DeviceMemory>> memories; // of each device
  std::vector<CUcontext> primary;                      // of each device

  // The valid handles.
  std::set<CUcontext> contexts;
  std::set<CUmodule> modules;
  std::set<CUfunction> functions;
  std::set<CUstream> streams;
  std::set<CUevent> events;
  std::set<CUgraph> graphs;
  std::set<CUgraphExec> executables;

  ~Driver() { clear(); }
  void initialise();
  void clear();

  // Contexts. `current` fails without a context and after a sticky error.
  CUcontext createContext(CUdevice device, bool primary);
  void destroyContext(CUcontext context);
  CUcontext current();
  void requireInitialised() const {
    if (!initialised)
      fail(CUDA_ERROR_NOT_INITIALIZED, "cuInit was not called");
  }
  void checkDevice(CUdevice device) const;
  DeviceMemory &memory() { return *memories[current()->device]; }

  // Streams.
  CUstream createStream(CUcontext context, bool blocking);
  CUstream stream(CUstream handle); // resolves the default streams
  /// Appends to a stream, or to the graph into which it is captured.
  void submit(CUstream stream, Action action);
  void synchronise(CUstream stream, uint64_t count);
  void synchroniseContext(CUcontext context);
  /// Waits for the legacy stream and for all streams that block with it.
  void synchroniseLegacy(CUcontext context);
  /// Runs one operation, and the launches behind it that may begin before it
  /// ends. Returns false if the queue is empty.
  bool step(CUstream stream);
  void run(DeviceMemory &memory, std::vector<LaunchConfig> launches);
  /// Whether what an operation comes behind is done.
  bool isReady(const Work &work) const;

  // Captures.
  void checkCapture(CUstream stream);
  /// Fails if a capture whose mode prohibits unsafe calls is active.
  void unsafeDuringCapture(const char *call);
  /// Fails a call that uses the legacy stream if a blocking stream is captured.
  void implicitDuringCapture(CUcontext context);
  std::vector<std::shared_ptr<Capture>> captures() const;
};

/// The singleton, guarded by driverLock().
Driver &driver();
std::recursive_mutex &driverLock();
/// The context stack of the calling thread; the last one is current.
std::vector<CUcontext> &contextStack();

template <typename Handle>
void checkHandle(const std::set<Handle> &valid, Handle handle,
                 const char *what) {
  if (valid.count(handle) == 0)
    fail(CUDA_ERROR_INVALID_HANDLE, "not a valid ", what);
}

template <typename T> void checkPointer(T *pointer) {
  if (!pointer)
    fail(CUDA_ERROR_INVALID_VALUE, "a pointer to a result is null");
}

/// Runs the body of an exported function under the lock.
template <typename Body> CUresult entry(const char *name, Body body) {
  std::lock_guard<std::recursive_mutex> guard(driverLock());
  Driver &state = driver();
  try {
    return body(state);
  } catch (const Fault &fault) {
    state.message = text(name, ": ", fault.message);
    state.log.write("error", {{"call", name},
                              {"code", int(fault.code)},
                              {"message", fault.message}});
    return fault.code;
  } catch (const std::bad_alloc &) {
    state.message = text(name, ": the host has no memory");
    return CUDA_ERROR_OUT_OF_MEMORY;
  } catch (...) {
    state.message = text(name, ": unexpected");
    return CUDA_ERROR_UNKNOWN;
  }
}

} // namespace moe::gpu

#endif // MOE_CUDA_DOUBLE_DRIVER_H
