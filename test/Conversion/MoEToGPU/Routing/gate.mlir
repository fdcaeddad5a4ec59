// RUN: moe-opt %s -convert-moe-to-gpu -canonicalize -cse -split-input-file \
// RUN:   | FileCheck %s --implicit-check-not=moe.gate

// A warp gates a token; a block has four warps. A row is distributed over the lanes,
// here in two slots each; out-of-range columns are clamped to the last one.
// CHECK:       llvm.func @gate(%[[L:[a-z0-9]+]]: !llvm.ptr<1>, %[[W:[a-z0-9]+]]: !llvm.ptr<1>, %[[I:[a-z0-9]+]]: !llvm.ptr<1>, %[[T:[a-z0-9]+]]: i64)
// CHECK-SAME:    {gpu.kernel, moe.shared_bytes = 0 : i64, moe.work = {{.*}}, nvvm.kernel, nvvm.maxntid = array<i32: 128, 1, 1>
// CHECK:         %[[LANE:.*]] = arith.andi %{{.*}}, %c31_i32
// CHECK:         %[[TOKEN:.*]] = arith.addi %{{.*}} : i64
// CHECK-NEXT:    %[[IN:.*]] = arith.cmpi slt, %[[TOKEN]], %[[T]]
// CHECK-NEXT:    scf.if %[[IN]] {
// CHECK:           %[[COLUMN:.*]] = arith.addi %[[LANE]], %c32_i32
// CHECK-NEXT:      %[[THERE:.*]] = arith.cmpi slt, %[[COLUMN]], %c40_i32
// CHECK:           llvm.load %{{.*}} : !llvm.ptr<1> -> bf16
// CHECK:           %[[HELD:.*]] = arith.minsi %[[COLUMN]], %c39_i32
// CHECK:           llvm.load %{{.*}} : !llvm.ptr<1> -> bf16
// CHECK:           %[[X1:.*]] = arith.select %[[THERE]], %{{.*}}, %[[NEGINF:cst.*]] : f32
// NaN becomes −inf.
// CHECK:           arith.cmpf uno
// CHECK-NEXT:      arith.select %{{.*}}, %[[NEGINF]], %{{.*}} : f32
// Softmax: the maximum and the sum over the lanes, in a fixed order.
// CHECK:           arith.maximumf
// CHECK:           nvvm.shfl.sync bfly %c-1_i32, %{{.*}}, %c16_i32, %c31_i32 : f32 -> f32
// CHECK-COUNT-4:   arith.maximumf
// CHECK-COUNT-2:   math.exp
// CHECK-COUNT-5:   nvvm.shfl.sync bfly
// CHECK:           arith.divf
// The argmax of the columns not taken, twice; ties go to the lowest column.
// CHECK:           %[[V:.*]] = nvvm.shfl.sync bfly %c-1_i32, %[[BEST:.*]], %c16_i32, %c31_i32 : f32 -> f32
// CHECK-NEXT:      %[[C:.*]] = nvvm.shfl.sync bfly %c-1_i32, %[[BESTC:.*]], %c16_i32, %c31_i32 : i32 -> i32
// CHECK-NEXT:      %[[MORE:.*]] = arith.cmpf ogt, %[[V]], %[[BEST]]
// CHECK-NEXT:      %[[SAME:.*]] = arith.cmpf oeq, %[[V]], %[[BEST]]
// CHECK-NEXT:      %[[LOWER:.*]] = arith.cmpi slt, %[[C]], %[[BESTC]]
// CHECK-NEXT:      %[[TIE:.*]] = arith.andi %[[SAME]], %[[LOWER]]
// CHECK-NEXT:      %[[BETTER:.*]] = arith.ori %[[MORE]], %[[TIE]]
// CHECK-NEXT:      arith.select %[[BETTER]], %[[V]], %[[BEST]]
// If all columns are taken, the choice is -1.
// CHECK:           %[[NONE:.*]] = arith.cmpi eq, %{{.*}}, %c2147483647_i32
// CHECK-NEXT:      arith.select %[[NONE]], %c-1_i32
// CHECK:           arith.select %{{.*}}, %c-1_i32, %{{.*}} : i32
// The weight of a choice is fetched from the lane and slot of its column; 0 without
// one.
// CHECK-COUNT-2:   nvvm.shfl.sync idx
// CHECK:           %[[VALID:.*]] = arith.cmpi ult, %[[ID:.*]], %c40_i32
// CHECK-NEXT:      %[[WEIGHT:.*]] = arith.select %[[VALID]], %{{.*}}, %{{.*}} : f32
// CHECK-NEXT:      %[[CHOICE:.*]] = arith.cmpi slt, %[[LANE]], %c2_i32
// CHECK-NEXT:      scf.if %[[CHOICE]] {
// CHECK:             llvm.store %[[WEIGHT]], %{{.*}} : f32, !llvm.ptr<1>
// CHECK:           scf.if %[[CHOICE]] {
// CHECK:             llvm.store %[[ID]], %{{.*}} : i32, !llvm.ptr<1>

// CHECK-LABEL: func.func @softmax(
// CHECK-SAME:    %[[L:.*]]: tensor<?x40xbf16>)
// CHECK:         %[[T:.*]] = tensor.dim %[[L]], %c0
// CHECK-DAG:     %[[WEIGHTS:.*]] = tensor.empty(%[[T]]) : tensor<?x2xf32>
// CHECK-DAG:     %[[IDS:.*]] = tensor.empty(%[[T]]) : tensor<?x2xi32>
// CHECK-DAG:     %[[BLOCKS:.*]] = arith.ceildiv{{[us]i}} %[[T]], %c4
// CHECK:         %[[R:.*]]:2 = moe_rt.launch @kernels::@gate blocks(%[[BLOCKS]]) ins(%[[L]] : tensor<?x40xbf16>) outs(%[[WEIGHTS]], %[[IDS]] : tensor<?x2xf32>, tensor<?x2xi32>) scalars(%[[T]] : index)
// CHECK-NEXT:    return %[[R]]#0, %[[R]]#1
func.func @softmax(%l: tensor<?x40xbf16>) -> (tensor<?x2xf32>, tensor<?x2xi32>) {
  %w, %i = moe.gate %l top_k(2) : tensor<?x40xbf16>
  return %w, %i : tensor<?x2xf32>, tensor<?x2xi32>
}

// -----

// Noise is added to the logits, the bias only for the selection; scores and weights are
// rounded to their type.
// CHECK:       llvm.func @gate(%[[L:[a-z0-9]+]]: !llvm.ptr<1>, %[[B:[a-z0-9]+]]: !llvm.ptr<1>, %[[N:[a-z0-9]+]]: !llvm.ptr<1>, %{{[a-z0-9]+}}: !llvm.ptr<1>, %{{[a-z0-9]+}}: !llvm.ptr<1>, %{{[a-z0-9]+}}: i64)
// CHECK:         llvm.getelementptr %[[L]][%[[AT:.*]]] : {{.*}}, f32
// CHECK:         llvm.getelementptr %[[N]][%[[AT]]] : {{.*}}, f16
// CHECK:         arith.addf
// CHECK:         %[[NEG:.*]] = arith.negf
// CHECK-NEXT:    %[[EXP:.*]] = math.exp %[[NEG]]
// CHECK-NEXT:    %[[D:.*]] = arith.addf %[[EXP]], %[[ONE:.*]] : f32
// CHECK-NEXT:    %[[SIGMOID:.*]] = arith.divf %[[ONE]], %[[D]]
// CHECK-NEXT:    %[[ROUNDED:.*]] = arith.truncf %[[SIGMOID]] : f32 to f16
// CHECK-NEXT:    %[[SCORE:.*]] = arith.extf %[[ROUNDED]] : f16 to f32
// CHECK:         llvm.getelementptr %[[B]][%{{.*}}] : {{.*}}, bf16
// CHECK:         arith.addf %[[SCORE]], %{{.*}} : f32
// Groups of two experts: the sum of the best two scores of each of four groups.
// CHECK:         %[[GROUP:.*]] = arith.divui %{{.*}}, %c2_i32
// CHECK-NEXT:    arith.cmpi ne, %[[GROUP]], %c0_i32
// CHECK:         arith.cmpi ne, %[[GROUP]], %c1_i32
// CHECK:         arith.cmpi ne, %[[GROUP]], %c2_i32
// CHECK:         arith.cmpi ne, %[[GROUP]], %c3_i32
// Scores outside of the best groups become 0.
// CHECK:         %[[KEPT:.*]] = arith.extui %{{.*}} : i1 to i32
// CHECK:         nvvm.shfl.sync idx %c-1_i32, %[[KEPT]],
// CHECK:         %[[FLAG:.*]] = arith.select %{{.*}}, %{{.*}}, %c0_i32
// CHECK-NEXT:    %[[DROPPED:.*]] = arith.cmpi eq, %[[FLAG]], %c0_i32
// CHECK-NEXT:    arith.select %[[DROPPED]], %{{cst.*}}, %{{.*}} : f32
// Weights are scores without the bias, divided by their sum.
// CHECK:         nvvm.shfl.sync idx %c-1_i32, %[[SCORE]],
// CHECK-COUNT-5: nvvm.shfl.sync bfly {{.*}} : f32 -> f32
// CHECK:         arith.divf
// CHECK-NEXT:    arith.truncf
// CHECK:         %[[SCALED:.*]] = arith.mulf %{{.*}}, %{{.*}} : f32
// CHECK-NEXT:    %[[RESULT:.*]] = arith.truncf %[[SCALED]] : f32 to f16
// CHECK:         llvm.store %[[RESULT]], %{{.*}} : f16, !llvm.ptr<1>
// CHECK-LABEL: func.func @groups(
// CHECK:         moe_rt.launch @kernels::@gate blocks(%{{.*}}) ins(%arg0, %arg1, %arg2 : tensor<?x8xf32>, tensor<8xbf16>, tensor<?x8xf16>) outs(%{{.*}}, %{{.*}} : tensor<?x2xf16>, tensor<?x2xi32>)
func.func @groups(%l: tensor<?x8xf32>, %b: tensor<8xbf16>, %n: tensor<?x8xf16>) -> (tensor<?x2xf16>, tensor<?x2xi32>) {
  %w, %i = moe.gate %l bias(%b : tensor<8xbf16>) noise(%n : tensor<?x8xf16>) top_k(2) score(sigmoid)
    groups(<count = 4, keep = 2, score = top2_sum, fill = zero>) normalize(<sum, epsilon = 1.0e-20>) scale(2.5) score_type(f16) : tensor<?x8xf32>
  return %w, %i : tensor<?x2xf16>, tensor<?x2xi32>
}

// -----

// Given choices are loaded, and scored among themselves. An invalid id counts for
// nothing and is kept; a choice below the threshold becomes -1.
// CHECK:       llvm.func @gate(%{{[a-z0-9]+}}: !llvm.ptr<1>, %[[IDS:[a-z0-9]+]]: !llvm.ptr<1>,
// CHECK:         %[[P:.*]] = llvm.getelementptr %[[IDS]][%{{.*}}] : {{.*}}, i32
// CHECK-NEXT:    %[[READ:.*]] = llvm.load %[[P]]
// CHECK-NEXT:    %[[ID:.*]] = arith.select %{{.*}}, %[[READ]], %c-1_i32
// CHECK:         nvvm.shfl.sync idx
// CHECK:         %[[VALID:.*]] = arith.cmpi ult, %[[ID]], %c8_i32
// CHECK:         math.exp
// CHECK:         arith.divf
// CHECK:         %[[ABOVE:.*]] = arith.cmpf ogt, %[[WEIGHT:.*]], %{{.*}} : f32
// CHECK-NEXT:    %[[LOW:.*]] = arith.xori %[[ABOVE]], %true
// CHECK-NEXT:    %[[DROPS:.*]] = arith.andi %[[VALID]], %[[LOW]]
// CHECK-NEXT:    %[[KEPT:.*]] = arith.select %[[DROPS]], %c-1_i32, %[[ID]]
// CHECK-NEXT:    arith.select %[[ABOVE]], %[[WEIGHT]]
// CHECK:         math.absf
// CHECK-NEXT:    arith.mulf
// CHECK:         %[[ROOT:.*]] = math.sqrt
// CHECK-NEXT:    arith.maximumf %[[ROOT]], %{{.*}} : f32
// CHECK:         llvm.store %[[KEPT]], %{{.*}} : i32, !llvm.ptr<1>
// CHECK-LABEL: func.func @given(
func.func @given(%l: tensor<?x8xf32>, %g: tensor<?x2xi32>) -> (tensor<?x2xf32>, tensor<?x2xi32>) {
  %w, %i = moe.gate %l ids(%g : tensor<?x2xi32>) top_k(2) order(select_then_score) threshold(0.25)
    normalize(<norm, p = 2.0, guard = clamp, epsilon = 1.0e-12>) : tensor<?x8xf32>
  return %w, %i : tensor<?x2xf32>, tensor<?x2xi32>
}

// -----

// Each choice is scored among the experts not taken within the margin of the best.
// CHECK:       llvm.func @gate(
// CHECK-COUNT-10: nvvm.shfl.sync bfly
// CHECK:         %[[GAP:.*]] = arith.subf
// CHECK-NEXT:    %[[SIZE:.*]] = math.absf
// CHECK-NEXT:    %[[FACTOR:.*]] = arith.maximumf %[[SIZE]], %{{.*}} : f32
// CHECK-NEXT:    %[[FAR:.*]] = arith.divf %[[GAP]], %[[FACTOR]]
// CHECK-NEXT:    arith.cmpf ogt, %[[FAR]], %{{.*}} : f32
// CHECK:         math.exp
// CHECK:         nvvm.shfl.sync idx
// CHECK:         arith.subf
// CHECK:         math.exp
// CHECK:         nvvm.shfl.sync idx
// CHECK-NOT:     math.exp
// CHECK-LABEL: func.func @each_choice(
func.func @each_choice(%l: tensor<?x8xf32>) -> (tensor<?x2xf32>, tensor<?x2xi32>) {
  %w, %i = moe.gate %l top_k(2) order(score_each_choice) margin(0.02) : tensor<?x8xf32>
  return %w, %i : tensor<?x2xf32>, tensor<?x2xi32>
}

// -----

// A given choice is taken from its lane.
// CHECK:       llvm.func @gate(
// CHECK:         %[[GIVEN:.*]] = llvm.load %{{.*}} : !llvm.ptr<1> -> i32
// CHECK:         %[[ROW:.*]] = arith.select %{{.*}}, %[[GIVEN]], %c-1_i32
// CHECK:         %[[ID:.*]] = nvvm.shfl.sync idx %{{.*}}, %[[ROW]]
// CHECK:         arith.select %{{.*}}, %[[ID]], %{{.*}} : i32
// CHECK-LABEL: func.func @each_given(
func.func @each_given(%l: tensor<?x8xf32>, %g: tensor<?x2xi32>) -> tensor<?x2xf32> {
  %w, %i = moe.gate %l ids(%g : tensor<?x2xi32>) top_k(2) order(score_each_choice) : tensor<?x8xf32>
  return %w : tensor<?x2xf32>
}

// -----

// Kernels of one module have unique names and share one gpu.module.
// CHECK-COUNT-1: gpu.module
// CHECK:         llvm.func @gate(
// CHECK:         arith.maximumf
// CHECK:         llvm.func @gate_1(
// CHECK-NOT:   gpu.module
// CHECK-LABEL: func.func @two(
// CHECK:         moe_rt.launch @kernels::@gate blocks
// CHECK:         moe_rt.launch @kernels::@gate_1 blocks
func.func @two(%l: tensor<5x3xf32>) -> (tensor<5x1xi32>, tensor<5x3xi32>) {
  %w0, %i0 = moe.gate %l top_k(1) score(relu) : tensor<5x3xf32>
  %w1, %i1 = moe.gate %l top_k(3) score(none) : tensor<5x3xf32>
  return %i0, %i1 : tensor<5x1xi32>, tensor<5x3xi32>
}
