// REQUIRES: target-nvptx
// RUN: moe-opt %s -moe-gpu-to-buffers -o %t.80
// RUN: moe-opt %s -moe-gpu-to-buffers=arch=sm_90a -o %t.90
// RUN: FileCheck %s --check-prefixes=KERNELS,SYNC --input-file=%t.80
// RUN: FileCheck %s --check-prefixes=KERNELS,WGMMA --input-file=%t.90
// The host touches no element: it computes sizes and places, and launches.
// RUN: sed -n '/func.func @layer/,$p' %t.80 | FileCheck %s --check-prefix=HOST --implicit-check-not=memref.load --implicit-check-not=memref.store \
// RUN:   --implicit-check-not=memref.copy --implicit-check-not=memref.alloc --implicit-check-not=get_global --implicit-check-not=linalg. --implicit-check-not=scf.
// RUN: moe-opt %s -moe-gpu | FileCheck %s --implicit-check-not=gpu.func --implicit-check-not='nvvm.' \
// RUN:   --implicit-check-not=moe_rt.launch --implicit-check-not=builtin.unrealized_conversion_cast
// RUN: moe-opt %s -moe-gpu=arch=sm_90a | FileCheck %s --check-prefix=HOPPER
// RUN: moe-opt %s -moe-gpu -o /dev/null --remarks-filter-missed="moe-gpu|moe-fuse" 2>&1 | count 0

// Everything of the layer has a kernel of its own. Outputs and reports are arguments,
// then the workspace.
// KERNELS:        gpu.module @kernels
// KERNELS:          llvm.func @grouped_matmul{{[a-z_]*}}(
// WGMMA:            llvm.func @grouped_matmul_wgmma(
// KERNELS-NOT:      gpu.func
// KERNELS-LABEL:  func.func @layer(
// KERNELS-SAME:     %[[X:[a-z0-9]+]]: memref<?x24xbf16>, %[[ROUTER:[a-z0-9]+]]: memref<8x24xbf16>, %[[GATE:[a-z0-9]+]]: memref<8x40x24xbf16>, %[[UP:[a-z0-9]+]]: memref<8x40x24xbf16>, %[[DOWN:[a-z0-9]+]]: memref<8x24x40xbf16>,
// KERNELS-SAME:     %[[Y:[a-z0-9]+]]: memref<?x24xbf16>, %[[OFFSETS:[a-z0-9]+]]: memref<9xi32>, %[[WORKSPACE:[a-z0-9]+]]: memref<?xi8>)
// KERNELS:          %[[R:.*]] = memref.expand_shape %[[ROUTER]]
// Logits are in shared memory.
// KERNELS-NOT:      to memref<?x8xf32>
// KERNELS:          moe_rt.launch @kernels::@router blocks({{.*}}) ins(%[[X]], %[[R]] : {{.*}}) outs(%[[WEIGHTS:[^,]*]], %[[IDS:[^,]*]], %[[TOKENS:[^,]*]], %[[OFFSETS]], %[[POSITIONS:[^,]*]], %[[COUNTS:[^,]*]], %[[ARRIVALS:[^,]*]] : memref<?x2xf32>, memref<?x2xi32>, memref<?xi32>, memref<9xi32>, memref<?x2xi32>, memref<?x8xi32>, memref<?xi32>)
// KERNELS:          moe_rt.launch @kernels::@router_1
// KERNELS:          moe_rt.launch @kernels::@route_place {{.*}} ins(%[[IDS]], %[[COUNTS]] : {{.*}}) outs(%[[TOKENS]], %[[OFFSETS]], %[[POSITIONS]] : memref<?xi32>, memref<9xi32>, memref<?x2xi32>)
// Rows are gathered by the first product of the experts, which has two and the
// activation; nothing is written to memory but what the next one reads.
// KERNELS:          moe_rt.launch {{.*}} ins(%[[X]], %[[TOKENS]], %[[OFFSETS]], %[[GATE]], %[[UP]] : {{.*}}) outs(%[[H:.*]] : memref<?x40xbf16>)
// SYNC:             moe_rt.launch @kernels::@grouped_matmul_3
// WGMMA:            moe_rt.launch @kernels::@grouped_matmul_wgmma
// The second one adds up the choices of tokens.
// SYNC-COUNT-4:     moe_rt.launch {{.*}} ins(%[[H]], %[[OFFSETS]], %[[DOWN]], %[[POSITIONS]], %[[WEIGHTS]], %[[TOKENS]] : {{.*}}) outs(%{{[^,]*}}, %[[Y]], %[[ARRIVALS]] :
// WGMMA-COUNT-5:    moe_rt.launch {{.*}} ins(%[[H]], %[[OFFSETS]], %[[DOWN]], %[[POSITIONS]], %[[WEIGHTS]], %[[TOKENS]] : {{.*}}) outs(%{{[^,]*}}, %[[Y]], %[[ARRIVALS]] :
// KERNELS-NOT:      moe_rt.launch
// KERNELS:          return
// KERNELS-LABEL:  func.func @moe_workspace_layer(
// KERNELS-SAME:     %{{.*}}: i64) -> i64

// HOST-LABEL:     func.func @layer(
// HOST-COUNT-11:    moe_rt.launch
// HOST-NOT:         moe_rt.launch
// HOST-LABEL:     func.func @moe_workspace_layer(

// The image and what there is in it, in the order of the kernels' numbers.
// CHECK:       module attributes {moe.images = [{arch = "sm_80", format = "ptx", size = {{[0-9]+}} : i64, symbol = "moe_image_0"}],
// CHECK-SAME:    moe.kernels = [{cluster = 1 : i64, name = "router", shared = {{[0-9]+}} : i64, threads = 512 : i64}, {cluster = 1 : i64, name = "router_1", {{[^}]*}}}, {cluster = 1 : i64, name = "route_place", {{[^}]*}}},
// CHECK-SAME:      {cluster = 1 : i64, name = "grouped_matmul", shared = {{[0-9]+}} : i64, threads = 256 : i64},
// CHECK-SAME:      name = "grouped_matmul_7", shared = {{[0-9]+}} : i64, threads = 256 : i64}]
// CHECK:         llvm.mlir.global external constant @moe_image_0("
// CHECK-SAME:      .target sm_80
// CHECK-SAME:      .visible .entry grouped_matmul(
// Entry points are those of any layer; this one passes the launcher on.
// CHECK:         llvm.func internal @layer(
// CHECK-NOT:       llvm.call @
// CHECK:           llvm.call %{{.*}}(%{{.*}}) : !llvm.ptr, (!llvm.ptr, i64, i64, i64, i64, !llvm.ptr, i64) -> i32
// CHECK-LABEL:   llvm.func @moe_workspace_layer(%{{.*}}: i64) -> i64
// CHECK-LABEL:   llvm.func @moe_entry_layer(
// CHECK-SAME:      %{{.*}}: !llvm.ptr, %[[LAUNCHER:.*]]: !llvm.ptr) -> i32
// CHECK:           llvm.call @_mlir_ciface_layer({{.*}}, %[[LAUNCHER]])

// HOPPER:      moe.images = [{arch = "sm_90a",
// HOPPER-SAME:   name = "grouped_matmul_wgmma", primaries = [{{[0-9, ]+}}], shared = {{[0-9]+}} : i64, threads = 384 : i64}
// HOPPER:      .target sm_90a
// HOPPER:      wgmma.mma_async

#lhs = affine_map<(m, n, k) -> (m, k)>
#rhs_t = affine_map<(m, n, k) -> (n, k)>
#out = affine_map<(m, n, k) -> (m, n)>
#id = affine_map<(i, j) -> (i, j)>

func.func @layer(
    %x: tensor<?x24xbf16> {moe.role = "input", moe.name = "x"},
    %router: tensor<8x24xbf16> {moe.role = "weight", moe.name = "router"},
    %gate_proj: tensor<8x40x24xbf16> {moe.role = "weight", moe.name = "gate_proj"},
    %up_proj: tensor<8x40x24xbf16> {moe.role = "weight", moe.name = "up_proj"},
    %down_proj: tensor<8x24x40xbf16> {moe.role = "weight", moe.name = "down_proj"})
    -> (tensor<?x24xbf16>) {
  %c0 = arith.constant 0 : index
  %zero = arith.constant 0.0 : f32
  %t = tensor.dim %x, %c0 : tensor<?x24xbf16>
  %empty = tensor.empty(%t) : tensor<?x8xf32>
  %zeros = linalg.fill ins(%zero : f32) outs(%empty : tensor<?x8xf32>) -> tensor<?x8xf32>
  %logits = linalg.matmul indexing_maps = [#lhs, #rhs_t, #out]
      ins(%x, %router : tensor<?x24xbf16>, tensor<8x24xbf16>) outs(%zeros : tensor<?x8xf32>) -> tensor<?x8xf32>
  %weights, %ids = moe.gate %logits top_k(2) normalize(<sum>) : tensor<?x8xf32>
  %grouped, %offsets, %positions = moe.dispatch %x, %ids experts(8)
      : tensor<?x24xbf16>, tensor<?x2xi32>
  %expert_rows = moe.expert %grouped, %offsets
      params(%gate_proj, %up_proj, %down_proj
             : tensor<8x40x24xbf16>, tensor<8x40x24xbf16>, tensor<8x24x40xbf16>) {
  ^bb0(%rows: tensor<?x24xbf16>, %gate_proj_e: tensor<40x24xbf16>, %up_proj_e: tensor<40x24xbf16>, %down_proj_e: tensor<24x40xbf16>):
    %n = tensor.dim %rows, %c0 : tensor<?x24xbf16>
    %empty_1 = tensor.empty(%n) : tensor<?x40xf32>
    %zeros_1 = linalg.fill ins(%zero : f32) outs(%empty_1 : tensor<?x40xf32>) -> tensor<?x40xf32>
    %g = linalg.matmul indexing_maps = [#lhs, #rhs_t, #out]
        ins(%rows, %gate_proj_e : tensor<?x24xbf16>, tensor<40x24xbf16>) outs(%zeros_1 : tensor<?x40xf32>) -> tensor<?x40xf32>
    %empty_2 = tensor.empty(%n) : tensor<?x40xf32>
    %zeros_2 = linalg.fill ins(%zero : f32) outs(%empty_2 : tensor<?x40xf32>) -> tensor<?x40xf32>
    %u = linalg.matmul indexing_maps = [#lhs, #rhs_t, #out]
        ins(%rows, %up_proj_e : tensor<?x24xbf16>, tensor<40x24xbf16>) outs(%zeros_2 : tensor<?x40xf32>) -> tensor<?x40xf32>
    %empty_3 = tensor.empty(%n) : tensor<?x40xf32>
    %h = linalg.generic {indexing_maps = [#id, #id, #id],
        iterator_types = ["parallel", "parallel"]}
        ins(%g, %u : tensor<?x40xf32>, tensor<?x40xf32>) outs(%empty_3 : tensor<?x40xf32>) {
    ^bb0(%a: f32, %b: f32, %old: f32):
      %neg = arith.negf %a : f32
      %exp = math.exp %neg : f32
      %one = arith.constant 1.0 : f32
      %den = arith.addf %one, %exp : f32
      %act = arith.divf %a, %den : f32
      %r = arith.mulf %act, %b : f32
      linalg.yield %r : f32
    } -> tensor<?x40xf32>
    %empty_4 = tensor.empty(%n) : tensor<?x40xbf16>
    %h_rounded = linalg.generic {indexing_maps = [#id, #id],
        iterator_types = ["parallel", "parallel"]}
        ins(%h : tensor<?x40xf32>) outs(%empty_4 : tensor<?x40xbf16>) {
    ^bb0(%a: f32, %old: bf16):
      %r = arith.truncf %a : f32 to bf16
      linalg.yield %r : bf16
    } -> tensor<?x40xbf16>
    %empty_5 = tensor.empty(%n) : tensor<?x24xf32>
    %zeros_3 = linalg.fill ins(%zero : f32) outs(%empty_5 : tensor<?x24xf32>) -> tensor<?x24xf32>
    %d = linalg.matmul indexing_maps = [#lhs, #rhs_t, #out]
        ins(%h_rounded, %down_proj_e : tensor<?x40xbf16>, tensor<24x40xbf16>) outs(%zeros_3 : tensor<?x24xf32>) -> tensor<?x24xf32>
    %empty_6 = tensor.empty(%n) : tensor<?x24xbf16>
    %rows_out = linalg.generic {indexing_maps = [#id, #id],
        iterator_types = ["parallel", "parallel"]}
        ins(%d : tensor<?x24xf32>) outs(%empty_6 : tensor<?x24xbf16>) {
    ^bb0(%a: f32, %old: bf16):
      %r = arith.truncf %a : f32 to bf16
      linalg.yield %r : bf16
    } -> tensor<?x24xbf16>
    moe.yield %rows_out : tensor<?x24xbf16>
  } : tensor<?x24xbf16>, tensor<9xi32> -> tensor<?x24xbf16>
  %y = moe.combine %expert_rows, %positions weights(%weights : tensor<?x2xf32>)
      : tensor<?x24xbf16>, tensor<?x2xi32>
  return %y : tensor<?x24xbf16>
}
