// RUN: moe-opt %s --allow-unregistered-dialect --moe-raise-grouped | FileCheck %s

// What StableHLO's own passes lower chlo.ragged_dot to, with any number of rows.

// CHECK-LABEL: func.func @any_rows(
// CHECK-SAME:      %[[X:.*]]: tensor<?x16xf32>, %[[W:.*]]: tensor<3x16x24xf32>, %[[SIZES:.*]]: tensor<3xi32>)
// CHECK:         scf.for
// CHECK:           tensor.extract %[[SIZES]]
// CHECK:         %[[Y:.*]] = moe.grouped_matmul %[[X]] offsets(%{{.*}} : tensor<4xi32>) weights(%[[W]] : tensor<3x16x24xf32>)
// CHECK-NOT:     stablehlo.dot_general
// CHECK:         return

// The second group begins at the first row; the third one has the second one's
// size; rows that are in a group or before it.
// RUN: sed 's/%29 = "stablehlo.compare"(%16, %15)/%29 = "stablehlo.compare"(%16, %14)/' %s | moe-opt - --allow-unregistered-dialect --moe-raise-grouped | FileCheck %s --check-prefix=NONE
// RUN: sed 's/%40 = "stablehlo.add"(%27, %39)/%40 = "stablehlo.add"(%27, %26)/' %s | moe-opt - --allow-unregistered-dialect --moe-raise-grouped | FileCheck %s --check-prefix=NONE
// RUN: sed 's/%31 = "stablehlo.and"/%31 = "stablehlo.or"/' %s | moe-opt - --allow-unregistered-dialect --moe-raise-grouped | FileCheck %s --check-prefix=NONE

// NONE-NOT: moe.grouped_matmul

"func.func"() <{function_type = (tensor<?x16xf32>, tensor<3x16x24xf32>, tensor<3xi32>) -> tensor<?x24xf32>, sym_name = "any_rows"}> ({
^bb0(%arg0: tensor<?x16xf32>, %arg1: tensor<3x16x24xf32>, %arg2: tensor<3xi32>):
  %0 = "stablehlo.constant"() <{value = dense<0.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %1 = "stablehlo.constant"() <{value = dense<1> : tensor<1xi64>}> : () -> tensor<1xi64>
  %2 = "stablehlo.constant"() <{value = dense<0> : tensor<i64>}> : () -> tensor<i64>
  %3 = "stablehlo.get_dimension_size"(%arg0) <{dimension = 0 : i64}> : (tensor<?x16xf32>) -> tensor<i32>
  %4 = "stablehlo.convert"(%3) : (tensor<i32>) -> tensor<i64>
  %5 = "stablehlo.reshape"(%4) : (tensor<i64>) -> tensor<1xi64>
  %6 = "stablehlo.concatenate"(%5, %1) <{dimension = 0 : i64}> : (tensor<1xi64>, tensor<1xi64>) -> tensor<2xi64>
  %7 = "stablehlo.dynamic_iota"(%6) <{iota_dimension = 0 : i64}> : (tensor<2xi64>) -> tensor<?x1xi64>
  %8 = "shape.shape_of"(%arg0) : (tensor<?x16xf32>) -> tensor<2xindex>
  %9 = "stablehlo.dynamic_broadcast_in_dim"(%0, %8) <{broadcast_dimensions = array<i64>}> : (tensor<f32>, tensor<2xindex>) -> tensor<?x16xf32>
  %10 = "stablehlo.slice"(%arg2) <{limit_indices = array<i64: 1>, start_indices = array<i64: 0>, strides = array<i64: 1>}> : (tensor<3xi32>) -> tensor<1xi32>
  %11 = "stablehlo.reshape"(%10) : (tensor<1xi32>) -> tensor<i32>
  %12 = "stablehlo.convert"(%11) : (tensor<i32>) -> tensor<i64>
  %13 = "stablehlo.add"(%2, %12) : (tensor<i64>, tensor<i64>) -> tensor<i64>
  %14 = "stablehlo.dynamic_broadcast_in_dim"(%2, %8) <{broadcast_dimensions = array<i64>}> : (tensor<i64>, tensor<2xindex>) -> tensor<?x16xi64>
  %15 = "stablehlo.dynamic_broadcast_in_dim"(%13, %8) <{broadcast_dimensions = array<i64>}> : (tensor<i64>, tensor<2xindex>) -> tensor<?x16xi64>
  %16 = "stablehlo.dynamic_broadcast_in_dim"(%7, %8) <{broadcast_dimensions = array<i64: 0, 1>}> : (tensor<?x1xi64>, tensor<2xindex>) -> tensor<?x16xi64>
  %17 = "stablehlo.compare"(%16, %14) <{comparison_direction = #stablehlo<comparison_direction GE>}> : (tensor<?x16xi64>, tensor<?x16xi64>) -> tensor<?x16xi1>
  %18 = "stablehlo.compare"(%16, %15) <{comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<?x16xi64>, tensor<?x16xi64>) -> tensor<?x16xi1>
  %19 = "stablehlo.and"(%17, %18) : (tensor<?x16xi1>, tensor<?x16xi1>) -> tensor<?x16xi1>
  %20 = "stablehlo.select"(%19, %arg0, %9) : (tensor<?x16xi1>, tensor<?x16xf32>, tensor<?x16xf32>) -> tensor<?x16xf32>
  %21 = "stablehlo.slice"(%arg1) <{limit_indices = array<i64: 1, 16, 24>, start_indices = array<i64: 0, 0, 0>, strides = array<i64: 1, 1, 1>}> : (tensor<3x16x24xf32>) -> tensor<1x16x24xf32>
  %22 = "stablehlo.reshape"(%21) : (tensor<1x16x24xf32>) -> tensor<16x24xf32>
  %23 = "stablehlo.dot_general"(%20, %22) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<?x16xf32>, tensor<16x24xf32>) -> tensor<?x24xf32>
  %24 = "stablehlo.slice"(%arg2) <{limit_indices = array<i64: 2>, start_indices = array<i64: 1>, strides = array<i64: 1>}> : (tensor<3xi32>) -> tensor<1xi32>
  %25 = "stablehlo.reshape"(%24) : (tensor<1xi32>) -> tensor<i32>
  %26 = "stablehlo.convert"(%25) : (tensor<i32>) -> tensor<i64>
  %27 = "stablehlo.add"(%13, %26) : (tensor<i64>, tensor<i64>) -> tensor<i64>
  %28 = "stablehlo.dynamic_broadcast_in_dim"(%27, %8) <{broadcast_dimensions = array<i64>}> : (tensor<i64>, tensor<2xindex>) -> tensor<?x16xi64>
  %29 = "stablehlo.compare"(%16, %15) <{comparison_direction = #stablehlo<comparison_direction GE>}> : (tensor<?x16xi64>, tensor<?x16xi64>) -> tensor<?x16xi1>
  %30 = "stablehlo.compare"(%16, %28) <{comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<?x16xi64>, tensor<?x16xi64>) -> tensor<?x16xi1>
  %31 = "stablehlo.and"(%29, %30) : (tensor<?x16xi1>, tensor<?x16xi1>) -> tensor<?x16xi1>
  %32 = "stablehlo.select"(%31, %arg0, %9) : (tensor<?x16xi1>, tensor<?x16xf32>, tensor<?x16xf32>) -> tensor<?x16xf32>
  %33 = "stablehlo.slice"(%arg1) <{limit_indices = array<i64: 2, 16, 24>, start_indices = array<i64: 1, 0, 0>, strides = array<i64: 1, 1, 1>}> : (tensor<3x16x24xf32>) -> tensor<1x16x24xf32>
  %34 = "stablehlo.reshape"(%33) : (tensor<1x16x24xf32>) -> tensor<16x24xf32>
  %35 = "stablehlo.dot_general"(%32, %34) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<?x16xf32>, tensor<16x24xf32>) -> tensor<?x24xf32>
  %36 = "stablehlo.add"(%23, %35) : (tensor<?x24xf32>, tensor<?x24xf32>) -> tensor<?x24xf32>
  %37 = "stablehlo.slice"(%arg2) <{limit_indices = array<i64: 3>, start_indices = array<i64: 2>, strides = array<i64: 1>}> : (tensor<3xi32>) -> tensor<1xi32>
  %38 = "stablehlo.reshape"(%37) : (tensor<1xi32>) -> tensor<i32>
  %39 = "stablehlo.convert"(%38) : (tensor<i32>) -> tensor<i64>
  %40 = "stablehlo.add"(%27, %39) : (tensor<i64>, tensor<i64>) -> tensor<i64>
  %41 = "stablehlo.dynamic_broadcast_in_dim"(%40, %8) <{broadcast_dimensions = array<i64>}> : (tensor<i64>, tensor<2xindex>) -> tensor<?x16xi64>
  %42 = "stablehlo.compare"(%16, %28) <{comparison_direction = #stablehlo<comparison_direction GE>}> : (tensor<?x16xi64>, tensor<?x16xi64>) -> tensor<?x16xi1>
  %43 = "stablehlo.compare"(%16, %41) <{comparison_direction = #stablehlo<comparison_direction LT>}> : (tensor<?x16xi64>, tensor<?x16xi64>) -> tensor<?x16xi1>
  %44 = "stablehlo.and"(%42, %43) : (tensor<?x16xi1>, tensor<?x16xi1>) -> tensor<?x16xi1>
  %45 = "stablehlo.select"(%44, %arg0, %9) : (tensor<?x16xi1>, tensor<?x16xf32>, tensor<?x16xf32>) -> tensor<?x16xf32>
  %46 = "stablehlo.slice"(%arg1) <{limit_indices = array<i64: 3, 16, 24>, start_indices = array<i64: 2, 0, 0>, strides = array<i64: 1, 1, 1>}> : (tensor<3x16x24xf32>) -> tensor<1x16x24xf32>
  %47 = "stablehlo.reshape"(%46) : (tensor<1x16x24xf32>) -> tensor<16x24xf32>
  %48 = "stablehlo.dot_general"(%45, %47) <{dot_dimension_numbers = #stablehlo.dot<lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [0]>}> : (tensor<?x16xf32>, tensor<16x24xf32>) -> tensor<?x24xf32>
  %49 = "stablehlo.add"(%36, %48) : (tensor<?x24xf32>, tensor<?x24xf32>) -> tensor<?x24xf32>
  "func.return"(%49) : (tensor<?x24xf32>) -> ()
}) : () -> ()
