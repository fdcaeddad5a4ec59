//===- xla_ffi.h - What is used of XLA's foreign function interface -------===//
//
// Part of the MoE project, under the Apache License v2.0 with LLVM Exceptions.
// See the LICENSE file for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The layout of the structures of XLA's C interface for custom calls that the
// handlers of layers read, and no others. It is declared here, since the header
// comes with jaxlib, and one binary is for all versions of jaxlib and for none.
// XLA keeps the layout of a major version; fields are only added at the end,
// and each structure begins with its size. test_jax.py compares this with
// jaxlib's header.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_PYTHON_XLA_FFI_H
#define MOE_PYTHON_XLA_FFI_H

#include <stddef.h>
#include <stdint.h>

enum { kXlaMajorVersion = 0, kXlaMinorVersion = 3 };

enum { kXlaMetadata = 1 };                     // XlaExtension::type
enum { kXlaBuffer = 1 };                       // of arguments and results
enum { kXlaScalarAttribute = 3, kXlaS64 = 5 }; // of attributes

typedef struct XlaError XlaError;
typedef struct XlaContext XlaContext;

typedef struct XlaExtension {
  size_t structSize;
  int type;
  struct XlaExtension *next;
} XlaExtension;

typedef struct {
  size_t structSize;
  XlaExtension *extensions;
  int major, minor;
} XlaVersion;

typedef struct {
  size_t structSize;
  XlaExtension *extensions;
  const char *message;
  int code; // of absl::Status, as moe_rt_code_t
} XlaErrorCreate;

typedef struct {
  size_t structSize;
  XlaExtension *extensions;
  int type; // an XLA_FFI_DataType
  void *data;
  int64_t rank;
  int64_t *dims;
} XlaBuffer;

typedef struct {
  const char *data;
  size_t size;
} XlaSpan;

typedef struct {
  int type;
  void *value;
} XlaScalar;

// Arguments or results.
typedef struct {
  size_t structSize;
  XlaExtension *extensions;
  int64_t size;
  int *types;
  void **values;
} XlaValues;

typedef struct {
  size_t structSize;
  XlaExtension *extensions;
  int64_t size;
  int *types;
  XlaSpan **names;
  void **values;
} XlaAttributes;

typedef struct {
  size_t structSize;
  XlaExtension *extensions;
  XlaContext *context;
  void *stream;
} XlaStreamGet;

typedef struct {
  size_t structSize;
  XlaExtension *extensions;
  XlaContext *context;
  int32_t ordinal;
} XlaDeviceOrdinalGet;

typedef struct {
  size_t structSize;
  XlaExtension *extensions;
  XlaVersion version;
  const void *internal;
  XlaError *(*createError)(XlaErrorCreate *);
  void *getMessage;
  void *destroyError;
  void *registerHandler;
  XlaError *(*getStream)(XlaStreamGet *);
  void *unused[12];
  XlaError *(*getDeviceOrdinal)(XlaDeviceOrdinalGet *);
} XlaApi;

typedef struct {
  size_t structSize;
  XlaExtension *extensions;
  const XlaApi *api;
  XlaContext *context;
  int stage;
  XlaValues arguments;
  XlaValues results;
  XlaAttributes attributes;
} XlaCallFrame;

// Follows the XlaExtension of a call that asks for the version.
typedef struct {
  size_t structSize;
  XlaVersion version;
} XlaMetadata;

typedef struct {
  XlaExtension extension;
  XlaMetadata *metadata;
} XlaMetadataExtension;

#endif // MOE_PYTHON_XLA_FFI_H
