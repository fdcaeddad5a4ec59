// RUN: moe-opt %s --moe-raise-operations --allow-unregistered-dialect | FileCheck %s

// An operation that does not implement the interface stays. The dialect acme in
// docs/examples/embedding has operations that do.
// CHECK-LABEL: func.func @stays(
// CHECK:         "acme.sort"
func.func @stays(%x: tensor<?x8xf32>) -> tensor<?x8xf32> {
  %y = "acme.sort"(%x) : (tensor<?x8xf32>) -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}
