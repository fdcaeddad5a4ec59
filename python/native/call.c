//===- call.c - Calls of layers from Python -------------------------------===//
//
// Part of the MoE project, under the Apache License v2.0 with LLVM Exceptions.
// See the LICENSE file for license information.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The module moe._native: the usual call of a layer, without ctypes. While a
// model streams the weights of all of its layers, none of Python's code and
// objects stays in a cache, and what a call touches of them costs more than
// what it executes. So this describes arrays on the stack.
//
// `Caller` takes whole numpy arrays and PyTorch tensors of a CPU. For all
// others it returns NotImplemented, and Python's code, which knows every form
// and has the messages, makes the call.
//
//===----------------------------------------------------------------------===//

#include "native.h"

#include "moe_rt/moe_rt.h"

enum { kMaxTensors = 8, kMaxRank = 8 };

typedef moe_rt_status_t (*CallFunction)(moe_rt_layer_t *, const DLTensor *,
                                        size_t, DLTensor *, size_t, void *,
                                        uint64_t);

// What a dtype object maps to in the dictionary of types: `code << 8 | bits`.
static DLDataType unpackType(long packed) {
  return (DLDataType){(uint8_t)(packed >> 8), (uint8_t)packed, 1};
}

typedef struct {
  PyObject_HEAD CallFunction function;
  PyObject *check;     // raises the error of a status
  PyObject *types;     // dtype object -> packed type
  PyObject *ndarray;   // numpy.ndarray
  PyObject *empty;     // numpy.empty
  PyObject *torch;     // exact types of tensors; empty while it is not imported
  PyObject *forwardAD; // torch.autograd.forward_ad, or None
  Py_ssize_t inputCount;
  // Of the output, where -1 stands for the number of tokens; of rank -1 if its
  // type is not that of the first input, so that it cannot be allocated here.
  int outputRank;
  int64_t outputShape[kMaxRank];
  // Which input has the number of tokens, in which dimension.
  int tokensInput, tokensDimension;
} Caller;

// A tensor and its extents. Contiguous, so without strides.
typedef struct {
  int64_t shape[kMaxRank];
} Extents;

// PyArrayInterface of numpy's array interface protocol, version 3.
typedef struct {
  int two;
  int nd;
  char typekind;
  int itemsize;
  int flags;
  Py_ssize_t *shape;
  Py_ssize_t *strides;
  void *data;
  PyObject *descr;
} ArrayInterface;

enum { kContiguous = 0x1, kNotSwapped = 0x200, kWriteable = 0x400 };

// All `describe...` return 1 if they described the array, 0 if it is not for
// them, with no exception set.

static int typeOf(Caller *self, PyObject *array, DLDataType *type) {
  PyObject *dtype = PyObject_GetAttrString(array, "dtype");
  if (!dtype)
    return 0;
  PyObject *packed = PyDict_GetItemWithError(self->types, dtype); // borrowed
  Py_DECREF(dtype);
  if (!packed)
    return 0;
  *type = unpackType(PyLong_AsLong(packed));
  return 1;
}

static int describeNumpy(Caller *self, PyObject *array, int writable,
                         DLTensor *tensor, Extents *extents) {
  PyObject *capsule = PyObject_GetAttrString(array, "__array_struct__");
  if (!capsule)
    return 0;
  const ArrayInterface *info = PyCapsule_GetPointer(capsule, NULL);
  int needed = kContiguous | kNotSwapped | (writable ? kWriteable : 0);
  int usable = info && info->two == 2 && info->nd <= kMaxRank &&
               (info->flags & needed) == needed;
  if (usable) {
    for (int i = 0; i < info->nd; ++i)
      extents->shape[i] = info->shape[i];
    *tensor = (DLTensor){.data = info->data,
                         .device = {kDLCPU, 0},
                         .ndim = info->nd,
                         .shape = extents->shape};
  }
  Py_DECREF(capsule);
  return usable && typeOf(self, array, &tensor->dtype);
}

static int isTrue(PyObject *object, const char *attribute) {
  PyObject *value = PyObject_GetAttrString(object, attribute);
  int result = value == Py_True;
  Py_XDECREF(value);
  return result;
}

static int returnsTrue(PyObject *object, const char *method) {
  PyObject *value = PyObject_CallMethod(object, method, NULL);
  int result = value == Py_True;
  Py_XDECREF(value);
  return result;
}

static int describeTorch(Caller *self, PyObject *array, DLTensor *tensor,
                         Extents *extents) {
  // Gradients, lazy views and what has no memory are for Python's code.
  if (!isTrue(array, "is_cpu") || isTrue(array, "requires_grad") ||
      !returnsTrue(array, "is_contiguous") || returnsTrue(array, "is_neg") ||
      PyErr_Occurred())
    return 0;
  PyObject *shape = PyObject_GetAttrString(array, "shape");
  if (!shape)
    return 0;
  Py_ssize_t rank = PyTuple_Check(shape) ? PyTuple_Size(shape) : kMaxRank + 1;
  for (Py_ssize_t i = 0; i < rank && rank <= kMaxRank; ++i)
    extents->shape[i] = PyLong_AsLongLong(PyTuple_GetItem(shape, i));
  Py_DECREF(shape);
  if (rank > kMaxRank || PyErr_Occurred())
    return 0;
  PyObject *address = PyObject_CallMethod(array, "data_ptr", NULL);
  if (!address)
    return 0;
  *tensor = (DLTensor){.data = PyLong_AsVoidPtr(address),
                       .device = {kDLCPU, 0},
                       .ndim = (int32_t)rank,
                       .shape = extents->shape};
  Py_DECREF(address);
  return !PyErr_Occurred() && typeOf(self, array, &tensor->dtype);
}

static int isTorch(Caller *self, PyObject *array) {
  for (Py_ssize_t i = 0, e = PyTuple_Size(self->torch); i < e; ++i)
    if ((PyObject *)Py_TYPE(array) == PyTuple_GetItem(self->torch, i))
      return 1;
  return 0;
}

static int describe(Caller *self, PyObject *array, int writable,
                    DLTensor *tensor, Extents *extents) {
  int done = 0;
  if ((PyObject *)Py_TYPE(array) == self->ndarray)
    done = describeNumpy(self, array, writable, tensor, extents);
  else if (isTorch(self, array))
    done = describeTorch(self, array, tensor, extents);
  if (!done)
    PyErr_Clear();
  return done;
}

// Is a derivative computed forwards, with tensors that look like others?
static int inForwardMode(Caller *self) {
  if (self->forwardAD == Py_None)
    return 0;
  PyObject *level = PyObject_GetAttrString(self->forwardAD, "_current_level");
  long value = level ? PyLong_AsLong(level) : 0;
  Py_XDECREF(level);
  PyErr_Clear();
  return value >= 0;
}

// Allocates the output like `example`, of the same type. Returns null without
// an exception if that is not possible here.
static PyObject *allocate(Caller *self, PyObject *example, int64_t tokens) {
  PyObject *shape = PyTuple_New(self->outputRank);
  if (!shape)
    return NULL;
  for (int i = 0; i < self->outputRank; ++i) {
    int64_t extent = self->outputShape[i] < 0 ? tokens : self->outputShape[i];
    PyTuple_SetItem(shape, i, PyLong_FromLongLong(extent));
  }
  PyObject *result;
  if ((PyObject *)Py_TYPE(example) == self->ndarray) {
    PyObject *dtype = PyObject_GetAttrString(example, "dtype");
    result = PyObject_CallFunctionObjArgs(self->empty, shape, dtype, NULL);
    Py_XDECREF(dtype);
  } else {
    result = PyObject_CallMethod(example, "new_empty", "O", shape);
  }
  Py_DECREF(shape);
  return result;
}

static PyObject *notMine(void) {
  if (PyErr_Occurred())
    return NULL;
  return Py_NewRef(Py_NotImplemented);
}

// Caller(layer, inputs, out, workspace): the result, or NotImplemented.
static PyObject *callerCall(PyObject *object, PyObject *arguments,
                            PyObject *keywords) {
  Caller *self = (Caller *)object;
  PyObject *layer, *inputs, *out, *workspace;
  (void)keywords;
  if (!PyArg_ParseTuple(arguments, "OO!OO", &layer, &PyTuple_Type, &inputs,
                        &out, &workspace))
    return NULL;
  DLTensor tensors[kMaxTensors], output, space;
  Extents extents[kMaxTensors], outputExtents, spaceExtents;
  Py_ssize_t count = PyTuple_Size(inputs);
  if (count != self->inputCount)
    return notMine();
  for (Py_ssize_t i = 0; i < count; ++i)
    if (!describe(self, PyTuple_GetItem(inputs, i), 0, &tensors[i],
                  &extents[i]))
      return notMine();
  void *memory = NULL;
  uint64_t bytes = 0;
  if (workspace != Py_None) {
    if (!describe(self, workspace, 1, &space, &spaceExtents))
      return notMine();
    memory = space.data;
    bytes = (space.dtype.bits + 7u) / 8u;
    for (int i = 0; i < space.ndim; ++i)
      bytes *= (uint64_t)space.shape[i];
  }
  PyObject *first = PyTuple_GetItem(inputs, 0);
  if ((PyObject *)Py_TYPE(first) != self->ndarray && inForwardMode(self))
    return notMine();
  if (out == Py_None) {
    if (self->outputRank < 0 ||
        self->tokensDimension >= tensors[self->tokensInput].ndim)
      return notMine();
    out = allocate(self, first,
                   tensors[self->tokensInput].shape[self->tokensDimension]);
    if (!out)
      return NULL;
  } else {
    Py_INCREF(out);
  }
  if (!describe(self, out, 1, &output, &outputExtents)) {
    Py_DECREF(out);
    return notMine();
  }
  moe_rt_layer_t *handle = PyLong_AsVoidPtr(layer);
  moe_rt_status_t status;
  Py_BEGIN_ALLOW_THREADS status =
      self->function(handle, tensors, (size_t)count, &output, 1, memory, bytes);
  Py_END_ALLOW_THREADS if (status) {
    PyObject *none =
        PyObject_CallFunction(self->check, "N", PyLong_FromVoidPtr(status));
    Py_XDECREF(none);
    Py_DECREF(out);
    return none ? notMine() : NULL; // check raises
  }
  return out;
}

static const char kCallerDoc[] =
    "Caller(function, check, types, ndarray, empty, inputs, output, tokens)\n\n"
    "Calls layers of one signature with one output. ``function`` is the "
    "address\n"
    "of moe_rt_layer_call, ``check`` raises the error of a status, ``types`` "
    "maps\n"
    "dtype objects to ``code << 8 | bits``, ``ndarray`` and ``empty`` are "
    "numpy's.\n"
    "``inputs`` is their number, ``output`` the shape of the output with -1 "
    "for the\n"
    "tokens, or None if it has another type than the first input, and "
    "``tokens``\n"
    "the input and the dimension that has their number.\n\n"
    "caller(layer, inputs, out, workspace) returns the output, or "
    "NotImplemented\n"
    "if it did nothing. ``layer`` is an address, ``inputs`` a tuple.";

static PyObject *callerNew(PyTypeObject *type, PyObject *arguments,
                           PyObject *keywords) {
  PyObject *function, *check, *types, *ndarray, *empty, *output;
  Py_ssize_t inputs;
  int tokensInput, tokensDimension;
  (void)keywords;
  if (!PyArg_ParseTuple(arguments, "OOO!OOnO(ii)", &function, &check,
                        &PyDict_Type, &types, &ndarray, &empty, &inputs,
                        &output, &tokensInput, &tokensDimension))
    return NULL;
  if (inputs < 1 || inputs > kMaxTensors || tokensInput < 0 ||
      tokensInput >= inputs || tokensDimension < 0) {
    PyErr_Format(PyExc_ValueError, "expected 1 to %d inputs, got %zd",
                 kMaxTensors, inputs);
    return NULL;
  }
  allocfunc allocateObject = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
  Caller *self = (Caller *)allocateObject(type, 0);
  if (!self)
    return NULL;
  self->function = (CallFunction)PyLong_AsVoidPtr(function);
  self->check = Py_NewRef(check);
  self->types = Py_NewRef(types);
  self->ndarray = Py_NewRef(ndarray);
  self->empty = Py_NewRef(empty);
  self->torch = PyTuple_New(0);
  self->forwardAD = Py_NewRef(Py_None);
  self->inputCount = inputs;
  self->tokensInput = tokensInput;
  self->tokensDimension = tokensDimension;
  self->outputRank = -1;
  if (PyTuple_Check(output) && PyTuple_Size(output) <= kMaxRank) {
    self->outputRank = (int)PyTuple_Size(output);
    for (int i = 0; i < self->outputRank; ++i)
      self->outputShape[i] = PyLong_AsLongLong(PyTuple_GetItem(output, i));
  }
  if (PyErr_Occurred()) {
    Py_DECREF(self);
    return NULL;
  }
  return (PyObject *)self;
}

static PyObject *callerUseTorch(PyObject *object, PyObject *arguments) {
  Caller *self = (Caller *)object;
  PyObject *types, *forwardAD;
  if (!PyArg_ParseTuple(arguments, "O!O", &PyTuple_Type, &types, &forwardAD))
    return NULL;
  PyObject *oldTypes = self->torch, *oldForwardAD = self->forwardAD;
  self->torch = Py_NewRef(types);
  self->forwardAD = Py_NewRef(forwardAD);
  Py_XDECREF(oldTypes);
  Py_XDECREF(oldForwardAD);
  Py_RETURN_NONE;
}

static int callerTraverse(PyObject *object, visitproc visit, void *arg) {
  Caller *self = (Caller *)object;
  Py_VISIT(Py_TYPE(object));
  Py_VISIT(self->check);
  Py_VISIT(self->types);
  Py_VISIT(self->ndarray);
  Py_VISIT(self->empty);
  Py_VISIT(self->torch);
  Py_VISIT(self->forwardAD);
  return 0;
}

static int callerClear(PyObject *object) {
  Caller *self = (Caller *)object;
  Py_CLEAR(self->check);
  Py_CLEAR(self->types);
  Py_CLEAR(self->ndarray);
  Py_CLEAR(self->empty);
  Py_CLEAR(self->torch);
  Py_CLEAR(self->forwardAD);
  return 0;
}

static void callerDealloc(PyObject *object) {
  PyTypeObject *type = Py_TYPE(object);
  PyObject_GC_UnTrack(object);
  callerClear(object);
  freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
  release(object);
  Py_DECREF(type);
}

static PyMethodDef callerMethods[] = {
    {"use_torch", callerUseTorch, METH_VARARGS,
     "use_torch(types, forward_ad): take tensors of exactly these types."},
    {NULL, NULL, 0, NULL}};

static PyType_Slot callerSlots[] = {{Py_tp_doc, (void *)kCallerDoc},
                                    {Py_tp_new, (void *)callerNew},
                                    {Py_tp_call, (void *)callerCall},
                                    {Py_tp_traverse, (void *)callerTraverse},
                                    {Py_tp_clear, (void *)callerClear},
                                    {Py_tp_dealloc, (void *)callerDealloc},
                                    {Py_tp_methods, callerMethods},
                                    {0, NULL}};

static PyType_Spec callerSpec = {"moe._native.Caller", sizeof(Caller), 0,
                                 Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
                                 callerSlots};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT,
                                        "_native",
                                        "Calls of layers, without ctypes.",
                                        0,
                                        NULL,
                                        NULL,
                                        NULL,
                                        NULL,
                                        NULL};

PyMODINIT_FUNC PyInit__native(void) {
  PyObject *module = PyModule_Create(&definition);
  if (!module)
    return NULL;
  PyObject *type = PyType_FromSpec(&callerSpec);
  if (!type || PyModule_AddObjectRef(module, "Caller", type) < 0 ||
      PyModule_AddIntConstant(module, "ABI_VERSION", MOE_RT_ABI_VERSION) < 0 ||
      PyModule_AddIntConstant(module, "MAX_INPUTS", kMaxTensors) < 0 ||
      moeAddXla(module) < 0) {
    Py_XDECREF(type);
    Py_DECREF(module);
    return NULL;
  }
  Py_DECREF(type);
  return module;
}
