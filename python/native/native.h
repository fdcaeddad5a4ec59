//===- native.h - The parts of the module moe._native ---------------------===//
//
// Part of the MoE project, under the Apache License v2.0 with LLVM Exceptions.
// See the LICENSE file for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_PYTHON_NATIVE_H
#define MOE_PYTHON_NATIVE_H

// Python's stable ABI: one binary for all versions from 3.11.
#define Py_LIMITED_API 0x030b0000
#include <Python.h>

/// Adds the handlers of calls from programs of XLA; -1 with an exception on
/// failure.
int moeAddXla(PyObject *module);

#endif // MOE_PYTHON_NATIVE_H
