// RUN: moe-opt %s -moe-tile-for-gpu -convert-moe-to-gpu -canonicalize -cse -split-input-file | FileCheck %s
// RUN: moe-opt %s -moe-tile-for-gpu=arch=sm_90a -convert-moe-to-gpu=arch=sm_90a -canonicalize -cse -split-input-file | FileCheck %s --check-prefix=WGMMA
// RUN: moe-opt %s -moe-tile-for-gpu -convert-moe-to-gpu -split-input-file --remarks-filter-missed=moe-gpu -o /dev/null 2>&1 | FileCheck %s --check-prefix=MISSED

// FP8 rows and weights: f16 in registers, two stages along k of 128.
// CHECK:       llvm.func @grouped_matmul_scaled(%{{.*}}: !llvm.ptr<1>, %{{.*}}: !llvm.ptr<1>, %{{.*}}: !llvm.ptr<1>, %{{.*}}: !llvm.ptr<1>, %[[XS:.*]]: !llvm.ptr<1>, %[[WS:.*]]: !llvm.ptr<1>, %{{.*}}: !llvm.ptr<1>, %{{.*}}: i32, %{{.*}}: i32)
// CHECK:         scf.for %[[STEP:.*]] = %c0_i32 to %c2_i32 step %c1_i32 iter_args
// The scales are loaded before the wait for the stage.
// CHECK:           %[[RS:.*]] = llvm.load %{{.*}} : !llvm.ptr<1> -> f32
// CHECK:           nvvm.cp.async.wait.group
// CHECK:           nvvm.barrier
// CHECK:           nvvm.ldmatrix
// CHECK:           arith.andi %{{.*}}, %c2130738944_i32
// CHECK-NOT:       vector<2xbf16>
// CHECK:           nvvm.mma.sync A[{{.*}}] B[{{.*}}] C[%cst{{[_0-9]*}}, %cst{{[_0-9]*}}, %cst{{[_0-9]*}}, %cst{{[_0-9]*}}]
// CHECK:           %[[SCALE:.*]] = arith.mulf %{{.*}}, %{{.*}} : f32
// CHECK:           llvm.intr.fma(%{{.*}}, %{{.*}}, %{{.*}}) : (f32, f32, f32) -> f32
// CHECK:           scf.yield
// CHECK-LABEL: func.func @both(
// CHECK-COUNT-3: moe_rt.launch @kernels::@grouped_matmul_scaled
// CHECK-NOT:     moe_rt.launch

// On sm_90a large tiles use FP8 wgmma; the first wgmma of a stage clears its
// accumulators.
// WGMMA:       llvm.func @grouped_matmul_wgmma(
// WGMMA:         nvvm.wgmma.mma_async {{.*}}<m = 64, n = 128, k = 32>, D[<f32>, <zero>], A[<e4m3>, <one>, <row>], B[<e4m3>, <one>, <col>]
// WGMMA-COUNT-3: nvvm.wgmma.mma_async {{.*}}D[<f32>, <one>]
// WGMMA-NOT:     nvvm.wgmma.mma_async
// WGMMA:         nvvm.wgmma.wait.group.sync.aligned 0
// WGMMA:         llvm.intr.fma
// WGMMA-LABEL: func.func @both(
// WGMMA-COUNT-3: moe_rt.launch @kernels::@grouped_matmul_scaled
// WGMMA:         moe_rt.launch @kernels::@grouped_matmul_wgmma
// WGMMA-SAME:      maps([#moe_rt.tensor_map<input = 3, box = [1, 128, 128], swizzle = 128>])
func.func @both(%x: tensor<?x208xf8E4M3FN>, %xs: tensor<?x2xf32>, %g: tensor<?xi32>, %offsets: tensor<3xi32>,
                %w: tensor<2x40x208xf8E4M3FN>, %ws: tensor<2x1x2xf32>, %init: tensor<?x40xf32>) -> tensor<?x40xf32> {
  %y = moe.grouped_matmul %x gather(%g : tensor<?xi32>) offsets(%offsets : tensor<3xi32>)
      weights(%w : tensor<2x40x208xf8E4M3FN>) transposed
      lhs_scales(%xs : tensor<?x2xf32>) weight_scales(%ws : tensor<2x1x2xf32>) blocks([128, 128])
      outs(%init : tensor<?x40xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x208xf8E4M3FN> -> tensor<?x40xf32>
  return %y : tensor<?x40xf32>
}

// -----

// bf16 rows: weights become bf16. wgmma takes A from registers, so operands are
// swapped: few rows are B, two blocks of 64 along k in shared memory.
// CHECK:         llvm.intr.fma(%{{.*}}, %{{.*}}, %{{.*}}) : (vector<2xbf16>, vector<2xbf16>, vector<2xbf16>) -> vector<2xbf16>
// CHECK-LABEL: func.func @weights(
// CHECK-COUNT-3: moe_rt.launch @kernels::@grouped_matmul_scaled
// WGMMA:       llvm.func @grouped_matmul_swapped(
// Each warp of consumers releases what it has read.
// WGMMA:         nvvm.mbarrier.init %{{.*}}, %c1_i32
// WGMMA:         nvvm.mbarrier.init %{{.*}}, %c4_i32
// The scales are loaded before the wait for the stage.
// WGMMA:         llvm.load %{{.*}} : !llvm.ptr<1> -> f32
// WGMMA:         nvvm.mbarrier.try_wait.parity
// WGMMA:         llvm.load %{{.*}} : !llvm.ptr<3> -> i16
// WGMMA:         cvt.rn.f16x2.e4m3x2
// WGMMA:         arith.truncf %{{.*}} : vector<2xf32> to vector<2xbf16>
// WGMMA:         nvvm.wgmma.fence.aligned
// WGMMA-NEXT:    llvm.inline_asm {{.*}}setp.ne.b32 p, 0, 0;{{.*}}wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {$0, $1, $2, $3}, {$8, $9, $10, $11}, $12, p, 1, 1, 0;
// WGMMA-COUNT-3: llvm.inline_asm {{.*}}setp.ne.b32 p, 1, 0;{{.*}}wgmma.mma_async.sync.aligned.m64n8k16
// WGMMA:         nvvm.wgmma.commit.group.sync.aligned
// WGMMA:         nvvm.wgmma.wait.group.sync.aligned 1
// WGMMA:         nvvm.wgmma.wait.group.sync.aligned 0
// WGMMA-NEXT:    nvvm.bar.warp.sync
// WGMMA:         nvvm.mbarrier.arrive
// WGMMA:         llvm.intr.fma(%{{.*}}, %{{.*}}, %{{.*}}) : (f32, f32, f32) -> f32
// WGMMA-LABEL: func.func @weights(
// WGMMA:         moe_rt.launch @kernels::@grouped_matmul_swapped
// WGMMA-SAME:      maps([#moe_rt.tensor_map<input = 0, box = [8, 64], swizzle = 128>, #moe_rt.tensor_map<input = 1, box = [1, 128, 128], swizzle = 128>])
// WGMMA-COUNT-2: moe_rt.launch @kernels::@grouped_matmul_swapped
// WGMMA:         moe_rt.launch @kernels::@grouped_matmul_scaled
// WGMMA-NOT:     moe_rt.launch
func.func @weights(%x: tensor<?x208xbf16>, %w: tensor<1x40x208xf8E4M3FN>, %ws: tensor<1x1x2xf32>,
                   %init: tensor<?x40xf32>) -> tensor<?x40xf32> {
  %y = moe.grouped_matmul %x weights(%w : tensor<1x40x208xf8E4M3FN>) transposed
      weight_scales(%ws : tensor<1x1x2xf32>) blocks([128, 128]) outs(%init : tensor<?x40xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x208xbf16> -> tensor<?x40xf32>
  return %y : tensor<?x40xf32>
}

// -----

// MISSED: Remark="'moe.grouped_matmul' not lowered to a GPU kernel: rows that are neither f8E4M3FN, f16 nor bf16"
// MISSED: Remark="'moe.grouped_matmul' not lowered to a GPU kernel: f8E4M3FN weights that are not K-major"
// MISSED: Remark="'moe.grouped_matmul' not lowered to a GPU kernel: f8E4M3FN weights of a k that is not a multiple of 16"
// MISSED: Remark="'moe.grouped_matmul' not lowered to a GPU kernel: blocks of scales that are not a multiple of 128 along k"
// MISSED: Remark="'moe.grouped_matmul' not lowered to a GPU kernel: blocks of scales that are not a multiple of 8 columns"
// MISSED: Remark="'moe.grouped_matmul' not lowered to a GPU kernel: scales of weights that are not f8E4M3FN"
// CHECK-LABEL: func.func @missed(
// CHECK-COUNT-6: moe.grouped_matmul
// CHECK-NOT:     moe_rt.launch
func.func @missed(%f: tensor<?x208xf32>, %b: tensor<?x208xbf16>, %q: tensor<?x72xf8E4M3FN>,
    %w: tensor<1x40x208xf8E4M3FN>, %n: tensor<1x208x40xf8E4M3FN>, %o: tensor<1x40x72xf8E4M3FN>,
    %v: tensor<1x40x208xbf16>, %s: tensor<1x1x4xf32>, %t: tensor<1x10x2xf32>, %u: tensor<1x1x2xf32>,
    %init: tensor<?x40xf32>)
    -> (tensor<?x40xf32>, tensor<?x40xf32>, tensor<?x40xf32>, tensor<?x40xf32>, tensor<?x40xf32>, tensor<?x40xf32>) {
  %y0 = moe.grouped_matmul %f weights(%w : tensor<1x40x208xf8E4M3FN>) transposed outs(%init : tensor<?x40xf32>) {
  ^bb0(%sum: f32):
    moe.yield %sum : f32
  } : tensor<?x208xf32> -> tensor<?x40xf32>
  %y1 = moe.grouped_matmul %b weights(%n : tensor<1x208x40xf8E4M3FN>) outs(%init : tensor<?x40xf32>) {
  ^bb0(%sum: f32):
    moe.yield %sum : f32
  } : tensor<?x208xbf16> -> tensor<?x40xf32>
  %y2 = moe.grouped_matmul %q weights(%o : tensor<1x40x72xf8E4M3FN>) transposed outs(%init : tensor<?x40xf32>) {
  ^bb0(%sum: f32):
    moe.yield %sum : f32
  } : tensor<?x72xf8E4M3FN> -> tensor<?x40xf32>
  %y3 = moe.grouped_matmul %b weights(%w : tensor<1x40x208xf8E4M3FN>) transposed weight_scales(%s : tensor<1x1x4xf32>) blocks([64, 128]) outs(%init : tensor<?x40xf32>) {
  ^bb0(%sum: f32):
    moe.yield %sum : f32
  } : tensor<?x208xbf16> -> tensor<?x40xf32>
  %y4 = moe.grouped_matmul %b weights(%w : tensor<1x40x208xf8E4M3FN>) transposed weight_scales(%t : tensor<1x10x2xf32>) blocks([128, 4]) outs(%init : tensor<?x40xf32>) {
  ^bb0(%sum: f32):
    moe.yield %sum : f32
  } : tensor<?x208xbf16> -> tensor<?x40xf32>
  %y5 = moe.grouped_matmul %b weights(%v : tensor<1x40x208xbf16>) transposed weight_scales(%u : tensor<1x1x2xf32>) blocks([128, 128]) outs(%init : tensor<?x40xf32>) {
  ^bb0(%sum: f32):
    moe.yield %sum : f32
  } : tensor<?x208xbf16> -> tensor<?x40xf32>
  return %y0, %y1, %y2, %y3, %y4, %y5 : tensor<?x40xf32>, tensor<?x40xf32>, tensor<?x40xf32>, tensor<?x40xf32>, tensor<?x40xf32>, tensor<?x40xf32>
}
