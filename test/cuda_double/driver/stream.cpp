//===- stream.cpp - Streams and captures ----------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Operations are queued and executed only when the host waits for them, so that
// code which reads a result too early reads the previous contents.
//
//===----------------------------------------------------------------------===//

#include "driver.h"

#include <algorithm>

using namespace moe::gpu;

CUstream Driver::createStream(CUcontext context, bool blocking) {
  auto *stream = new CUstream_st();
  stream->context = context;
  stream->blocking = blocking;
  streams.insert(stream);
  return stream;
}

CUstream Driver::stream(CUstream handle) {
  CUcontext context = current();
  if (!handle || handle == CU_STREAM_LEGACY)
    return context->legacy;
  if (handle == CU_STREAM_PER_THREAD)
    return context->perThread;
  checkHandle(streams, handle, "stream");
  if (handle->context->error != CUDA_SUCCESS)
    fail(handle->context->error, "the context is dead: ", message);
  return handle;
}

//===----------------------------------------------------------------------===//
// Order
//===----------------------------------------------------------------------===//

void Driver::submit(CUstream stream, Action action) {
  CUcontext context = stream->context;
  checkCapture(stream);
  if (stream->capture) {
    stream->capture->nodes.push_back(std::move(action));
    if (stream != stream->capture->origin)
      stream->capture->branches[stream].last = stream->capture->nodes.size();
    return;
  }
  Work work = {std::move(action), std::move(stream->waits)};
  stream->waits.clear();
  if (stream == context->legacy) {
    implicitDuringCapture(context);
    for (CUstream other : streams)
      if (other->context == context && other->blocking && other != stream)
        work.after.push_back({other, other->enqueued()});
  } else if (stream->blocking) {
    work.after.push_back({context->legacy, context->legacy->enqueued()});
  }
  stream->queue.push_back(std::move(work));
}

bool Driver::step(CUstream stream) {
  if (stream->queue.empty())
    return false;
  Work work = std::move(stream->queue.front());
  for (const StreamPosition &position : work.after)
    if (streams.count(position.stream))
      synchronise(position.stream, position.count);
  auto pop = [&] {
    stream->queue.pop_front();
    ++stream->done;
  };
  pop();
  try {
    if (!work.action.launch) {
      work.action.run();
      return true;
    }
    std::vector<LaunchConfig> launches = {*work.action.launch};
    while (!stream->queue.empty() && launches.size() < 64) {
      const Work &next = stream->queue.front();
      if (!next.action.launch || !next.action.launch->programmatic ||
          !isReady(next))
        break;
      launches.push_back(*next.action.launch);
      pop();
    }
    run(*memories[stream->context->device], std::move(launches));
  } catch (const Fault &fault) {
    // The error is sticky: as on a device, it ends the context.
    CUcontext context = stream->context;
    context->error = fault.code;
    message = fault.message;
    std::fprintf(stderr, "cuda double: %s\n", fault.message.c_str());
    log.write("fault", {{"code", int(fault.code)}, {"message", fault.message}});
    for (CUstream other : streams)
      if (other->context == context) {
        other->done += other->queue.size();
        other->queue.clear();
      }
    throw;
  }
  return true;
}

bool Driver::isReady(const Work &work) const {
  for (const StreamPosition &position : work.after)
    if (streams.count(position.stream) &&
        position.stream->done < position.count)
      return false;
  return true;
}

void Driver::run(DeviceMemory &memory, std::vector<LaunchConfig> configs) {
  uint64_t number = launches + 1;
  launches += configs.size();
  Machine machine(settings, memory, std::move(configs), number);
  struct Count {
    Driver &driver;
    Machine &machine;
    ~Count() { driver.instructions += machine.executed; }
  } count = {*this, machine};
  machine.run();
  for (const auto &launch : machine.launches)
    log.write("end", {{"kernel", launch->config.function->name},
                      {"launch", launch->number},
                      {"bytes_read", launch->bytesRead},
                      {"bytes_copied", launch->bytesCopied},
                      {"bytes_written", launch->bytesWritten}});
}

void Driver::synchronise(CUstream stream, uint64_t count) {
  while (stream->done < count && step(stream)) {
  }
}

void Driver::synchroniseContext(CUcontext context) {
  // This may be called while an operation runs; the set of streams is stable.
  for (CUstream stream : streams)
    if (stream->context == context)
      synchronise(stream, stream->enqueued());
}

void Driver::synchroniseLegacy(CUcontext context) {
  implicitDuringCapture(context);
  for (CUstream stream : streams)
    if (stream->context == context && stream->blocking)
      synchronise(stream, stream->enqueued());
}

//===----------------------------------------------------------------------===//
// Captures
//===----------------------------------------------------------------------===//

/// The mode that cuThreadExchangeStreamCaptureMode sets.
static thread_local CUstreamCaptureMode threadMode =
    CU_STREAM_CAPTURE_MODE_GLOBAL;

std::vector<std::shared_ptr<Capture>> Driver::captures() const {
  std::vector<std::shared_ptr<Capture>> result;
  for (CUstream stream : streams)
    if (stream->capture && stream->capture->origin == stream)
      result.push_back(stream->capture);
  return result;
}

void Driver::checkCapture(CUstream stream) {
  if (stream->capture && stream->capture->invalidated)
    fail(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "the capture is invalid");
}

void Driver::unsafeDuringCapture(const char *call) {
  if (threadMode == CU_STREAM_CAPTURE_MODE_RELAXED)
    return;
  bool prohibited = false;
  for (const std::shared_ptr<Capture> &capture : captures()) {
    bool own = capture->thread == std::this_thread::get_id();
    bool counts =
        capture->mode == CU_STREAM_CAPTURE_MODE_GLOBAL
            ? own || threadMode == CU_STREAM_CAPTURE_MODE_GLOBAL
            : capture->mode == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL && own;
    if (!counts)
      continue;
    capture->invalidated = prohibited = true;
  }
  if (prohibited)
    fail(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, call,
         " is not allowed while a stream is captured");
}

void Driver::implicitDuringCapture(CUcontext context) {
  bool prohibited = false;
  for (CUstream stream : streams)
    if (stream->context == context && stream->blocking && stream->capture) {
      stream->capture->invalidated = true;
      prohibited = true;
    }
  if (prohibited)
    fail(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT,
         "the legacy stream depends on a stream that is captured");
}

/// Destroys an object that nothing else refers to.
template <typename Handle>
static CUresult destroy(const char *call, std::set<Handle> Driver::*valid,
                        Handle handle, const char *what) {
  return entry(call, [&](Driver &driver) {
    driver.requireInitialised();
    checkHandle(driver.*valid, handle, what);
    (driver.*valid).erase(handle);
    delete handle;
    return CUDA_SUCCESS;
  });
}

/// Refuses a call that would wait for a stream which is captured.
static void refuseWait(CUstream stream) {
  if (!stream->capture)
    return;
  stream->capture->invalidated = true;
  fail(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
       "waits for a stream that is captured");
}

CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode *mode) {
  return entry("cuThreadExchangeStreamCaptureMode", [&](Driver &) {
    checkPointer(mode);
    std::swap(*mode, threadMode);
    return CUDA_SUCCESS;
  });
}

CUresult cuStreamBeginCapture_v2(CUstream handle, CUstreamCaptureMode mode) {
  return entry("cuStreamBeginCapture", [&](Driver &driver) {
    CUstream stream = driver.stream(handle);
    if (stream == stream->context->legacy)
      fail(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
           "the legacy stream cannot be captured");
    if (mode < 0 || mode > CU_STREAM_CAPTURE_MODE_RELAXED)
      fail(CUDA_ERROR_INVALID_VALUE, "unknown mode ", int(mode));
    if (stream->capture)
      fail(CUDA_ERROR_ILLEGAL_STATE, "the stream is captured already");
    stream->capture = std::make_shared<Capture>();
    stream->capture->origin = stream;
    stream->capture->mode = mode;
    stream->capture->thread = std::this_thread::get_id();
    driver.log.write("begin_capture", {{"mode", int(mode)}});
    return CUDA_SUCCESS;
  });
}

CUresult cuStreamEndCapture(CUstream handle, CUgraph *graph) {
  return entry("cuStreamEndCapture", [&](Driver &driver) {
    checkPointer(graph);
    *graph = nullptr;
    CUstream stream = driver.stream(handle);
    std::shared_ptr<Capture> capture = stream->capture;
    if (!capture)
      fail(CUDA_ERROR_ILLEGAL_STATE, "the stream is not captured");
    if (capture->origin != stream)
      fail(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED,
           "the capture began in another stream");
    if (capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED &&
        capture->thread != std::this_thread::get_id())
      fail(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD,
           "the capture began in another thread");
    bool joined = true;
    for (auto &[branch, state] : capture->branches) {
      joined &= state.joined >= state.last;
      if (driver.streams.count(branch))
        branch->capture.reset();
    }
    stream->capture.reset();
    if (capture->invalidated)
      fail(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "the capture is invalid");
    if (!joined)
      fail(CUDA_ERROR_STREAM_CAPTURE_UNJOINED,
           "a stream that joined the capture was not waited for");
    auto *result = new CUgraph_st{stream->context, capture->nodes};
    driver.graphs.insert(result);
    *graph = result;
    driver.log.write("end_capture", {{"nodes", capture->nodes.size()}});
    return CUDA_SUCCESS;
  });
}

CUresult cuStreamIsCapturing(CUstream handle, CUstreamCaptureStatus *status) {
  return entry("cuStreamIsCapturing", [&](Driver &driver) {
    checkPointer(status);
    CUstream stream = driver.stream(handle);
    if (stream == stream->context->legacy)
      driver.implicitDuringCapture(stream->context);
    *status = !stream->capture ? CU_STREAM_CAPTURE_STATUS_NONE
              : stream->capture->invalidated
                  ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                  : CU_STREAM_CAPTURE_STATUS_ACTIVE;
    return CUDA_SUCCESS;
  });
}

//===----------------------------------------------------------------------===//
// Streams
//===----------------------------------------------------------------------===//

CUresult cuStreamCreate(CUstream *stream, unsigned flags) {
  return entry("cuStreamCreate", [&](Driver &driver) {
    checkPointer(stream);
    if (flags > CU_STREAM_NON_BLOCKING)
      fail(CUDA_ERROR_INVALID_VALUE, "unknown flags ", flags);
    CUcontext context = driver.current();
    *stream = driver.createStream(context, flags != CU_STREAM_NON_BLOCKING);
    return CUDA_SUCCESS;
  });
}

CUresult cuStreamCreateWithPriority(CUstream *stream, unsigned flags, int) {
  return cuStreamCreate(stream, flags);
}

CUresult cuStreamDestroy_v2(CUstream stream) {
  return entry("cuStreamDestroy", [&](Driver &driver) {
    driver.current();
    checkHandle(driver.streams, stream, "stream");
    if (stream == stream->context->legacy ||
        stream == stream->context->perThread)
      fail(CUDA_ERROR_INVALID_HANDLE, "a default stream");
    if (stream->capture)
      stream->capture->invalidated = true;
    else
      driver.synchronise(stream, stream->enqueued());
    driver.streams.erase(stream);
    delete stream;
    return CUDA_SUCCESS;
  });
}

CUresult cuStreamSynchronize(CUstream handle) {
  return entry("cuStreamSynchronize", [&](Driver &driver) {
    CUstream stream = driver.stream(handle);
    refuseWait(stream);
    driver.unsafeDuringCapture("cuStreamSynchronize");
    driver.log.write("synchronise", {{"what", "stream"}});
    if (stream == stream->context->legacy)
      driver.synchroniseLegacy(stream->context);
    else
      driver.synchronise(stream, stream->enqueued());
    return CUDA_SUCCESS;
  });
}

CUresult cuStreamQuery(CUstream handle) {
  return entry("cuStreamQuery", [&](Driver &driver) {
    CUstream stream = driver.stream(handle);
    refuseWait(stream);
    driver.unsafeDuringCapture("cuStreamQuery");
    // Each query executes one operation, so that polling terminates.
    return driver.step(stream) ? CUDA_ERROR_NOT_READY : CUDA_SUCCESS;
  });
}

CUresult cuStreamGetCtx(CUstream handle, CUcontext *context) {
  return entry("cuStreamGetCtx", [&](Driver &driver) {
    checkPointer(context);
    *context = driver.stream(handle)->context;
    return CUDA_SUCCESS;
  });
}

CUresult cuStreamWaitEvent(CUstream handle, CUevent event, unsigned) {
  return entry("cuStreamWaitEvent", [&](Driver &driver) {
    CUstream stream = driver.stream(handle);
    checkHandle(driver.events, event, "event");
    driver.checkCapture(stream);
    if (event->capture) {
      if (event->capture->invalidated)
        fail(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "the capture is invalid");
      if (stream->capture && stream->capture != event->capture) {
        stream->capture->invalidated = event->capture->invalidated = true;
        fail(CUDA_ERROR_STREAM_CAPTURE_MERGE, "two captures would be one");
      }
      Capture &capture = *event->capture;
      if (stream == capture.origin) {
        if (event->captureStream != stream) {
          size_t &joined = capture.branches[event->captureStream].joined;
          joined = std::max(joined, event->node);
        }
      } else {
        // The stream joins the capture; the origin must wait for its next node.
        stream->capture = event->capture;
        Capture::Branch &branch = capture.branches[stream];
        branch.last = std::max(branch.last, capture.nodes.size() + 1);
      }
      return CUDA_SUCCESS;
    }
    if (stream->capture) {
      stream->capture->invalidated = true;
      fail(CUDA_ERROR_STREAM_CAPTURE_ISOLATION,
           "a captured stream waits for an event from outside");
    }
    if (event->recorded && driver.streams.count(event->position.stream))
      stream->waits.push_back(event->position);
    return CUDA_SUCCESS;
  });
}

//===----------------------------------------------------------------------===//
// Events
//===----------------------------------------------------------------------===//

CUresult cuEventCreate(CUevent *event, unsigned flags) {
  return entry("cuEventCreate", [&](Driver &driver) {
    checkPointer(event);
    CUcontext context = driver.current();
    auto *result = new CUevent_st();
    result->context = context;
    result->timing = !(flags & CU_EVENT_DISABLE_TIMING);
    driver.events.insert(result);
    *event = result;
    return CUDA_SUCCESS;
  });
}

CUresult cuEventDestroy_v2(CUevent event) {
  return destroy("cuEventDestroy", &Driver::events, event, "event");
}

CUresult cuEventRecord(CUevent event, CUstream handle) {
  return entry("cuEventRecord", [&](Driver &driver) {
    CUstream stream = driver.stream(handle);
    checkHandle(driver.events, event, "event");
    driver.checkCapture(stream);
    event->recorded = true;
    event->capture = stream->capture;
    if (stream->capture) {
      event->node = stream->capture->nodes.size() +
                    (stream->capture->origin != stream ? 1 : 0);
      event->captureStream = stream;
      return CUDA_SUCCESS;
    }
    auto time = std::make_shared<double>(-1);
    event->milliseconds = time;
    driver.submit(stream, [time] {
      auto now = std::chrono::steady_clock::now().time_since_epoch();
      *time = std::chrono::duration<double, std::milli>(now).count();
    });
    event->position = {stream, stream->enqueued()};
    return CUDA_SUCCESS;
  });
}

static void checkEvent(Driver &driver, CUevent event, const char *call) {
  driver.current();
  checkHandle(driver.events, event, "event");
  if (event->capture) {
    event->capture->invalidated = true;
    fail(CUDA_ERROR_CAPTURED_EVENT, "the event was recorded in a capture");
  }
  driver.unsafeDuringCapture(call);
}

CUresult cuEventSynchronize(CUevent event) {
  return entry("cuEventSynchronize", [&](Driver &driver) {
    checkEvent(driver, event, "cuEventSynchronize");
    driver.log.write("synchronise", {{"what", "event"}});
    if (event->recorded && driver.streams.count(event->position.stream))
      driver.synchronise(event->position.stream, event->position.count);
    return CUDA_SUCCESS;
  });
}

CUresult cuEventQuery(CUevent event) {
  return entry("cuEventQuery", [&](Driver &driver) {
    checkEvent(driver, event, "cuEventQuery");
    if (!event->recorded || !driver.streams.count(event->position.stream) ||
        event->position.stream->done >= event->position.count)
      return CUDA_SUCCESS;
    driver.step(event->position.stream);
    return CUDA_ERROR_NOT_READY;
  });
}

CUresult cuEventElapsedTime(float *milliseconds, CUevent from, CUevent to) {
  return entry("cuEventElapsedTime", [&](Driver &driver) {
    checkPointer(milliseconds);
    driver.current();
    for (CUevent event : {from, to}) {
      checkHandle(driver.events, event, "event");
      if (!event->timing || !event->milliseconds)
        fail(CUDA_ERROR_INVALID_HANDLE, "the event has no time");
      if (*event->milliseconds < 0)
        return CUDA_ERROR_NOT_READY;
    }
    *milliseconds = static_cast<float>(*to->milliseconds - *from->milliseconds);
    return CUDA_SUCCESS;
  });
}

CUresult cuEventElapsedTime_v2(float *milliseconds, CUevent from, CUevent to) {
  return cuEventElapsedTime(milliseconds, from, to);
}

//===----------------------------------------------------------------------===//
// Graphs
//===----------------------------------------------------------------------===//

CUresult cuGraphInstantiateWithFlags(CUgraphExec *executable, CUgraph graph,
                                     unsigned long long) {
  return entry("cuGraphInstantiateWithFlags", [&](Driver &driver) {
    checkPointer(executable);
    driver.current();
    checkHandle(driver.graphs, graph, "graph");
    auto *result = new CUgraphExec_st{graph->context, graph->nodes};
    driver.executables.insert(result);
    *executable = result;
    return CUDA_SUCCESS;
  });
}

CUresult cuGraphLaunch(CUgraphExec executable, CUstream handle) {
  return entry("cuGraphLaunch", [&](Driver &driver) {
    CUstream stream = driver.stream(handle);
    checkHandle(driver.executables, executable, "graph");
    driver.log.write("graph_launch", {{"nodes", executable->nodes.size()}});
    for (const Action &node : executable->nodes)
      driver.submit(stream, node);
    return CUDA_SUCCESS;
  });
}

CUresult cuGraphExecDestroy(CUgraphExec executable) {
  return destroy("cuGraphExecDestroy", &Driver::executables, executable,
                 "graph");
}

CUresult cuGraphDestroy(CUgraph graph) {
  return destroy("cuGraphDestroy", &Driver::graphs, graph, "graph");
}

CUresult cuGraphGetNodes(CUgraph graph, CUgraphNode *nodes, size_t *count) {
  return entry("cuGraphGetNodes", [&](Driver &driver) {
    checkPointer(count);
    driver.requireInitialised();
    checkHandle(driver.graphs, graph, "graph");
    size_t have = graph->nodes.size();
    if (nodes)
      for (size_t i = 0; i < *count; ++i)
        nodes[i] = i < have ? reinterpret_cast<CUgraphNode>(&graph->nodes[i])
                            : nullptr;
    *count = nodes ? std::min(*count, have) : have;
    return CUDA_SUCCESS;
  });
}
