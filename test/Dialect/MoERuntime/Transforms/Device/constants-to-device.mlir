// RUN: moe-opt %s -moe-constants-to-device -allow-unregistered-dialect | FileCheck %s

memref.global "private" constant @zero : memref<3x2xf32> = dense<0.0> {alignment = 64 : i64}
memref.global "private" constant @table : memref<2x2xi32> = dense<[[1, 2], [3, 4]]>
memref.global "private" constant @flags : memref<2xi1> = dense<[true, false]>
memref.global "private" constant @scalar : memref<f32> = dense<2.5>
memref.global "private" constant @large : memref<2000xf32> = dense<1.0>
memref.global "private" constant @none : memref<0xf32> = dense<[]>

// One value for all: a buffer of the function that is filled.
// CHECK-LABEL: func.func @splats(
// CHECK-SAME:    %[[OUT:.*]]: memref<3x2xf32>, %{{.*}}: memref<f32>)
// CHECK-NOT:     memref.get_global
// CHECK:         %[[ZERO:.*]] = memref.alloc() : memref<3x2xf32>
// CHECK:         %[[V:.*]] = arith.constant 0.000000e+00 : f32
// CHECK:         linalg.fill ins(%[[V]] : f32) outs(%[[ZERO]] : memref<3x2xf32>)
// CHECK:         %[[SCALAR:.*]] = memref.alloc() : memref<f32>
// CHECK:         linalg.fill ins(%{{.*}} : f32) outs(%[[SCALAR]] : memref<f32>)
// However many there are.
// CHECK:         %[[LARGE:.*]] = memref.alloc() : memref<2000xf32>
// CHECK:         linalg.fill
// CHECK:         memref.copy %[[ZERO]], %[[OUT]]
// CHECK:         memref.copy %[[SCALAR]]
// CHECK:         "test.use"(%[[LARGE]])
func.func @splats(%out: memref<3x2xf32>, %s: memref<f32>) attributes {moe.signature = #moe.signature} {
  %z = memref.get_global @zero : memref<3x2xf32>
  %c = memref.get_global @scalar : memref<f32>
  %l = memref.get_global @large : memref<2000xf32>
  memref.copy %z, %out : memref<3x2xf32> to memref<3x2xf32>
  memref.copy %c, %s : memref<f32> to memref<f32>
  "test.use"(%l) : (memref<2000xf32>) -> ()
  return
}

// Else a store for each element, the last index first.
// CHECK-LABEL: func.func @elements(
// CHECK-NOT:     memref.get_global
// CHECK:         %[[TABLE:.*]] = memref.alloc() : memref<2x2xi32>
// CHECK:         memref.store %c1_i32, %[[TABLE]][%c0{{.*}}, %c0{{.*}}]
// CHECK:         memref.store %c2_i32, %[[TABLE]][%c0{{.*}}, %c1{{.*}}]
// CHECK:         memref.store %c3_i32, %[[TABLE]][%c1{{.*}}, %c0{{.*}}]
// CHECK:         memref.store %c4_i32, %[[TABLE]][%c1{{.*}}, %c1{{.*}}]
// CHECK:         %[[FLAGS:.*]] = memref.alloc() : memref<2xi1>
// CHECK:         memref.store %true{{.*}}, %[[FLAGS]][%{{.*}}]
// CHECK:         memref.store %false{{.*}}, %[[FLAGS]][%{{.*}}]
// CHECK:         %[[NONE:.*]] = memref.alloc() : memref<0xf32>
// CHECK:         "test.use"(%[[TABLE]], %[[FLAGS]], %[[NONE]])
func.func @elements() attributes {moe.signature = #moe.signature} {
  %t = memref.get_global @table : memref<2x2xi32>
  %f = memref.get_global @flags : memref<2xi1>
  %n = memref.get_global @none : memref<0xf32>
  "test.use"(%t, %f, %n) : (memref<2x2xi32>, memref<2xi1>, memref<0xf32>) -> ()
  return
}

// Other functions run on the host.
// CHECK-LABEL: func.func @not_exported(
// CHECK:         memref.get_global @table
// CHECK-NOT:     memref.alloc
func.func @not_exported() -> memref<2x2xi32> {
  %t = memref.get_global @table : memref<2x2xi32>
  return %t : memref<2x2xi32>
}
