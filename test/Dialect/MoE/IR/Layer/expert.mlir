// RUN: moe-opt %s | FileCheck %s
// What is printed parses to the same, as bytecode too.
// RUN: moe-opt %s | moe-opt | FileCheck %s
// RUN: moe-opt %s --mlir-print-op-generic | moe-opt | FileCheck %s
// RUN: moe-opt %s --emit-bytecode | moe-opt | FileCheck %s
// RUN: moe-opt %s --mlir-print-op-generic | FileCheck %s --check-prefix=GENERIC

// CHECK-LABEL: func.func @minimal(
// CHECK-SAME:    %[[G:.*]]: tensor<?x4xf32>, %[[O:.*]]: tensor<3xi32>)
// CHECK-NEXT:    %[[Y:.*]] = moe.expert %[[G]], %[[O]] {
// CHECK-NEXT:    ^bb0(%rows: tensor<?x4xf32>):
// CHECK-NEXT:      moe.yield %rows : tensor<?x4xf32>
// CHECK-NEXT:    } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
// CHECK-NEXT:    return %[[Y]]
// GENERIC-LABEL: sym_name = "minimal"
// GENERIC:         "moe.expert"(%{{.*}}, %{{.*}}) <{
// GENERIC-SAME:      operandSegmentSizes = array<i32: 1, 1, 0, 0>,
// GENERIC-SAME:      uncovered = #moe<uncovered undefined>}>
func.func @minimal(%g: tensor<?x4xf32>, %o: tensor<3xi32>) -> tensor<?x4xf32> {
  %y = moe.expert %g, %o {
  ^bb0(%r: tensor<?x4xf32>):
    moe.yield %r : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}

// Parameters of any rank, type and extent; slices without the leading dimension.
// CHECK-LABEL: func.func @params(
// CHECK:         moe.expert %{{.*}}, %{{.*}} params(%[[A:.*]], %[[B:.*]], %[[C:.*]] : tensor<2xi8>, tensor<2x0x4xf32>, tensor<2x?x4x?xf64>) {
// CHECK-NEXT:    ^bb0(%rows: tensor<?x4xf32>, %{{.*}}: tensor<i8>, %{{.*}}: tensor<0x4xf32>, %{{.*}}: tensor<?x4x?xf64>):
// CHECK:         } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x7xf16>
func.func @params(%g: tensor<?x4xf32>, %o: tensor<3xi32>, %a: tensor<2xi8>,
                  %b: tensor<2x0x4xf32>, %c: tensor<2x?x4x?xf64>, %out: tensor<?x7xf16>) -> tensor<?x7xf16> {
  %y = moe.expert %g, %o params(%a, %b, %c : tensor<2xi8>, tensor<2x0x4xf32>, tensor<2x?x4x?xf64>) {
  ^bb0(%r: tensor<?x4xf32>, %ra: tensor<i8>, %rb: tensor<0x4xf32>, %rc: tensor<?x4x?xf64>):
    moe.yield %out : tensor<?x7xf16>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x7xf16>
  return %y : tensor<?x7xf16>
}

// CHECK-LABEL: func.func @ranges(
// CHECK-SAME:    %[[G:[^:]*]]: tensor<?x4xf32>, %[[O:[^:]*]]: tensor<9xi32>, %[[P:[^:]*]]: tensor<3x4xf32>
// CHECK:         moe.expert %[[G]], %[[O]] params(%[[P]] : tensor<3x4xf32>) init(%[[G]] : tensor<?x4xf32>) first(2) count(3) {
// CHECK:         moe.expert %[[G]], %[[O]] params(%[[P]] : tensor<3x4xf32>) first(5) uncovered(zero) {
// CHECK:         moe.expert %[[G]], %[[O]] params(%[[P]] : tensor<3x4xf32>) count(3) {
// GENERIC-LABEL: sym_name = "ranges"
// GENERIC:         "moe.expert"(%{{.*}}) <{count = 3 : i64, first = 2 : i64,
// GENERIC-SAME:      operandSegmentSizes = array<i32: 1, 1, 1, 1>
func.func @ranges(%g: tensor<?x4xf32>, %o: tensor<9xi32>, %p: tensor<3x4xf32>) {
  %y0 = moe.expert %g, %o params(%p : tensor<3x4xf32>) init(%g : tensor<?x4xf32>) first(2) count(3) {
  ^bb0(%r: tensor<?x4xf32>, %q: tensor<4xf32>):
    moe.yield %r : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<9xi32> -> tensor<?x4xf32>
  %y1 = moe.expert %g, %o params(%p : tensor<3x4xf32>) first(5) uncovered(zero) {
  ^bb0(%r: tensor<?x4xf32>, %q: tensor<4xf32>):
    moe.yield %r : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<9xi32> -> tensor<?x4xf32>
  %y2 = moe.expert %g, %o params(%p : tensor<3x4xf32>) count(3) uncovered(undefined) {
  ^bb0(%r: tensor<?x4xf32>, %q: tensor<4xf32>):
    moe.yield %r : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<9xi32> -> tensor<?x4xf32>
  return
}

// The region always works on any number of rows; a static R stays outside.
// CHECK-LABEL: func.func @static_rows(
// CHECK:         ^bb0(%rows: tensor<?x?xf32>):
// CHECK:         } {my.note = "kept"} : tensor<12x?xf32>, tensor<3xi32> -> tensor<12x5xf32>
func.func @static_rows(%g: tensor<12x?xf32>, %o: tensor<3xi32>, %out: tensor<?x5xf32>) {
  %y = moe.expert %g, %o {
  ^bb0(%r: tensor<?x?xf32>):
    moe.yield %out : tensor<?x5xf32>
  } {my.note = "kept"} : tensor<12x?xf32>, tensor<3xi32> -> tensor<12x5xf32>
  return
}

// CHECK-LABEL: func.func @nested(
// CHECK:         moe.expert
// CHECK-NEXT:    ^bb0(%[[OUTER:.*]]: tensor<?x4xf32>):
// CHECK-NEXT:      moe.expert %[[OUTER]], %{{.*}} {
// CHECK-NEXT:      ^bb0(%[[INNER:.*]]: tensor<?x4xf32>):
// CHECK-NEXT:        moe.yield %[[OUTER]]
func.func @nested(%g: tensor<?x4xf32>, %o: tensor<3xi32>, %o2: tensor<5xi32>) -> tensor<?x4xf32> {
  %y = moe.expert %g, %o {
  ^bb0(%r: tensor<?x4xf32>):
    %z = moe.expert %r, %o2 {
    ^bb0(%s: tensor<?x4xf32>):
      moe.yield %r : tensor<?x4xf32>
    } : tensor<?x4xf32>, tensor<5xi32> -> tensor<?x4xf32>
    moe.yield %z : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}
