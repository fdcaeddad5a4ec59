//===- xla.c - Calls of layers from programs of XLA -----------------------===//
//
// Part of the MoE project, under the Apache License v2.0 with LLVM Exceptions.
// See the LICENSE file for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A program of XLA calls a layer as a custom call with the attribute `layer`, a
// key. A key is bound to a layer of this process: one that nobody has bound, as
// in a program that another process has exported, is an error, and no address.
// XLA calls handlers from any of its threads, several at once, and without the
// GIL, which they do not need.
//
//===----------------------------------------------------------------------===//

#include "native.h"

#include "moe_rt/moe_rt.h"
#include "xla_ffi.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { kMaxTensors = 32, kBuckets = 256 };

//===----------------------------------------------------------------------===//
// Layers by key
//===----------------------------------------------------------------------===//

typedef struct Binding {
  int64_t key;
  moe_rt_layer_t *layer;
  int64_t calls; // that use it now
  struct Binding *next;
} Binding;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t unused = PTHREAD_COND_INITIALIZER;
static Binding *buckets[kBuckets];

// Functions of the runtime, which Python has loaded.
static struct {
  moe_rt_status_t (*call)(moe_rt_layer_t *, const DLTensor *, size_t,
                          DLTensor *, size_t, void *, uint64_t);
  moe_rt_status_t (*callOnStream)(moe_rt_layer_t *, const DLTensor *, size_t,
                                  DLTensor *, size_t, void *, uint64_t, void *);
  moe_rt_code_t (*code)(moe_rt_status_t);
  const char *(*message)(moe_rt_status_t);
  void (*release)(moe_rt_status_t);
} runtime;

static Binding **findLocked(int64_t key) {
  Binding **at = &buckets[(uint64_t)key % kBuckets];
  while (*at && (*at)->key != key)
    at = &(*at)->next;
  return at;
}

static Binding *acquire(int64_t key) {
  pthread_mutex_lock(&mutex);
  Binding *found = *findLocked(key);
  if (found)
    ++found->calls;
  pthread_mutex_unlock(&mutex);
  return found;
}

static void release(Binding *binding) {
  pthread_mutex_lock(&mutex);
  if (--binding->calls == 0)
    pthread_cond_broadcast(&unused);
  pthread_mutex_unlock(&mutex);
}

// Binds a layer, or none, and waits for the calls of the one before.
static int bind(int64_t key, moe_rt_layer_t *layer) {
  Binding *binding = layer ? malloc(sizeof(Binding)) : NULL;
  if (layer && !binding)
    return 0;
  pthread_mutex_lock(&mutex);
  Binding **at = findLocked(key), *old = *at;
  if (old)
    *at = old->next;
  if (binding) {
    *binding = (Binding){key, layer, 0, *at};
    *at = binding;
  }
  while (old && old->calls)
    pthread_cond_wait(&unused, &mutex);
  pthread_mutex_unlock(&mutex);
  free(old);
  return 1;
}

//===----------------------------------------------------------------------===//
// The handlers
//===----------------------------------------------------------------------===//

static XlaError *fail(const XlaApi *api, int code, const char *message) {
  XlaErrorCreate arguments = {sizeof(arguments), NULL, message, code};
  return api->createError(&arguments);
}

static int typeOf(int type, DLDataType *out) {
  static const struct {
    uint8_t xla, code, bits;
  } types[] = {{1, 6, 8}, // PRED
               {2, 0, 8},   {3, 0, 16},  {4, 0, 32},  {5, 0, 64},  {6, 1, 8},
               {7, 1, 16},  {8, 1, 32},  {9, 1, 64},  {10, 2, 16}, {11, 2, 32},
               {12, 2, 64}, {16, 4, 16}, {20, 10, 8}, // F8E4M3FN
               {19, 12, 8},                           // F8E5M2
               {33, 14, 8}};                          // F8E8M0FNU
  for (size_t i = 0; i < sizeof(types) / sizeof(*types); ++i)
    if (types[i].xla == type) {
      *out = (DLDataType){types[i].code, types[i].bits, 1};
      return 1;
    }
  return 0;
}

// Returns 0 if the call has something that no layer takes.
static int describe(const XlaValues *values, DLDevice device, DLTensor *out) {
  if (values->size < 0 || values->size > kMaxTensors)
    return 0;
  for (int64_t i = 0; i < values->size; ++i) {
    const XlaBuffer *buffer = values->values[i];
    DLDataType type;
    if (values->types[i] != kXlaBuffer || !typeOf(buffer->type, &type))
      return 0;
    // Row-major: the call says so of its operands and results.
    out[i] = (DLTensor){.data = buffer->data,
                        .device = device,
                        .ndim = (int32_t)buffer->rank,
                        .dtype = type,
                        .shape = buffer->dims};
  }
  return 1;
}

static int findKey(const XlaAttributes *attributes, int64_t *key) {
  for (int64_t i = 0; i < attributes->size; ++i) {
    const XlaSpan *name = attributes->names[i];
    const XlaScalar *scalar = attributes->values[i];
    if (attributes->types[i] == kXlaScalarAttribute && name->size == 5 &&
        !memcmp(name->data, "layer", 5) && scalar->type == kXlaS64) {
      memcpy(key, scalar->value, sizeof(*key));
      return 1;
    }
  }
  return 0;
}

// Answers a call that only asks for the version.
static int describeVersion(const XlaCallFrame *frame) {
  for (XlaExtension *e = frame->extensions; e; e = e->next)
    if (e->type == kXlaMetadata) {
      XlaMetadata *metadata = ((XlaMetadataExtension *)e)->metadata;
      metadata->version.major = kXlaMajorVersion;
      metadata->version.minor = kXlaMinorVersion;
      return 1;
    }
  return 0;
}

static XlaError *call(const XlaCallFrame *frame, DLDevice device,
                      void *stream) {
  const XlaApi *api = frame->api;
  DLTensor inputs[kMaxTensors], outputs[kMaxTensors];
  int64_t key;
  if (!findKey(&frame->attributes, &key))
    return fail(api, MOE_RT_INVALID_ARGUMENT,
                "moe: expected the attribute 'layer', an i64");
  if (!describe(&frame->arguments, device, inputs) ||
      !describe(&frame->results, device, outputs))
    return fail(api, MOE_RT_INVALID_ARGUMENT,
                "moe: expected up to 32 arrays of types that layers take");
  Binding *binding = acquire(key);
  if (!binding)
    return fail(api, MOE_RT_NOT_FOUND,
                "moe: the program calls a layer that is not in this process");
  size_t inputCount = (size_t)frame->arguments.size;
  size_t outputCount = (size_t)frame->results.size;
  // Without a workspace of XLA's: the context keeps one for each thread that
  // calls, and its size is not known before the call if the shapes are not.
  moe_rt_status_t status =
      device.device_type == kDLCPU
          ? runtime.call(binding->layer, inputs, inputCount, outputs,
                         outputCount, NULL, 0)
          : runtime.callOnStream(binding->layer, inputs, inputCount, outputs,
                                 outputCount, NULL, 0, stream);
  release(binding);
  if (!status)
    return NULL;
  char message[1024];
  snprintf(message, sizeof(message), "moe: %s", runtime.message(status));
  XlaError *error = fail(api, (int)runtime.code(status), message);
  runtime.release(status);
  return error;
}

static XlaError *callOnCpu(XlaCallFrame *frame) {
  if (describeVersion(frame))
    return NULL;
  return call(frame, (DLDevice){kDLCPU, 0}, NULL);
}

static XlaError *callOnCuda(XlaCallFrame *frame) {
  if (describeVersion(frame))
    return NULL;
  const XlaApi *api = frame->api;
  if (api->structSize < sizeof(XlaApi))
    return fail(api, MOE_RT_FAILED_PRECONDITION,
                "moe: this XLA does not tell its handlers the device");
  XlaStreamGet stream = {sizeof(stream), NULL, frame->context, NULL};
  XlaDeviceOrdinalGet device = {sizeof(device), NULL, frame->context, 0};
  XlaError *error = api->getStream(&stream);
  if (!error)
    error = api->getDeviceOrdinal(&device);
  if (error)
    return error;
  return call(frame, (DLDevice){kDLCUDA, device.ordinal}, stream.stream);
}

//===----------------------------------------------------------------------===//
// For Python
//===----------------------------------------------------------------------===//

static PyObject *useRuntime(PyObject *module, PyObject *arguments) {
  unsigned long long call, callOnStream, code, message, release;
  (void)module;
  if (!PyArg_ParseTuple(arguments, "KKKKK", &call, &callOnStream, &code,
                        &message, &release))
    return NULL;
  *(void **)&runtime.call = (void *)(uintptr_t)call;
  *(void **)&runtime.callOnStream = (void *)(uintptr_t)callOnStream;
  *(void **)&runtime.code = (void *)(uintptr_t)code;
  *(void **)&runtime.message = (void *)(uintptr_t)message;
  *(void **)&runtime.release = (void *)(uintptr_t)release;
  Py_RETURN_NONE;
}

static PyObject *bindLayer(PyObject *module, PyObject *arguments) {
  long long key;
  unsigned long long layer;
  int bound;
  (void)module;
  if (!PyArg_ParseTuple(arguments, "LK", &key, &layer))
    return NULL;
  Py_BEGIN_ALLOW_THREADS bound = bind(key, (moe_rt_layer_t *)(uintptr_t)layer);
  Py_END_ALLOW_THREADS if (!bound) return PyErr_NoMemory();
  Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"use_runtime", useRuntime, METH_VARARGS,
     "use_runtime(call, call_on_stream, code, message, free): the addresses of "
     "the functions of the runtime that handlers call."},
    {"bind_layer", bindLayer, METH_VARARGS,
     "bind_layer(key, layer): have programs call the layer at this address, or "
     "none if it is 0, and wait for running calls of the one before."},
    {NULL, NULL, 0, NULL}};

static int addHandler(PyObject *module, const char *name,
                      XlaError *(*handler)(XlaCallFrame *)) {
  PyObject *capsule =
      PyCapsule_New(*(void **)&handler, "xla._CUSTOM_CALL_TARGET", NULL);
  int result = capsule ? PyModule_AddObjectRef(module, name, capsule) : -1;
  Py_XDECREF(capsule);
  return result;
}

int moeAddXla(PyObject *module) {
  if (PyModule_AddFunctions(module, functions) < 0 ||
      addHandler(module, "XLA_CPU", callOnCpu) < 0)
    return -1;
  return addHandler(module, "XLA_CUDA", callOnCuda);
}
