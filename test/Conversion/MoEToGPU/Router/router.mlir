// RUN: moe-opt %s -moe-fuse-router -convert-moe-to-gpu -canonicalize -cse -split-input-file | FileCheck %s
// RUN: moe-opt %s -moe-fuse-router -convert-moe-to-gpu=arch=sm_90a -canonicalize -cse -split-input-file \
// RUN:   | FileCheck %s --check-prefix=CLUSTER

// The matmul, the gate and the routing take two launches; the grid of the second is
// empty if one block has all tokens.
// CHECK:       llvm.func @router(%[[X:[a-z0-9]+]]: !llvm.ptr<1>, %[[W:[a-z0-9]+]]: !llvm.ptr<1>, %[[WEIGHTS:[a-z0-9]+]]: !llvm.ptr<1>, %[[IDS:[a-z0-9]+]]: !llvm.ptr<1>, %[[TOKENS:[a-z0-9]+]]: !llvm.ptr<1>, %[[OFFSETS:[a-z0-9]+]]: !llvm.ptr<1>, %[[POSITIONS:[a-z0-9]+]]: !llvm.ptr<1>, %[[COUNTS:[a-z0-9]+]]: !llvm.ptr<1>, %[[COUNTERS:[a-z0-9]+]]: !llvm.ptr<1>, %[[T:[a-z0-9]+]]: i32, %[[SHARE:[a-z0-9]+]]: i32, %[[ROWS:[a-z0-9]+]]: i32, %[[COUNT:[a-z0-9]+]]: i64)
// CHECK-SAME:    nvvm.maxntid = array<i32: 512, 1, 1>
// CHECK-NOT:   nvvm.cluster_dim
// The blocks clear the counters of a combine.
// CHECK:         scf.for %[[I:.*]] = %{{.*}} to %[[COUNT]] step %{{.*}}
// CHECK-NEXT:      %[[AT:.*]] = llvm.getelementptr %[[COUNTERS]][%[[I]]]
// CHECK-NEXT:      llvm.store %c0_i32, %[[AT]]
// Each lane loads 16 bytes of a row: two mma of depth 16.
// CHECK:         %[[OWN:.*]] = scf.for
// CHECK-COUNT-5:   llvm.load %{{.*}} {alignment = 16 : i64} : !llvm.ptr<1> -> vector<8xbf16>
// CHECK-COUNT-4:   nvvm.mma.sync {{.*}}shape = #nvvm.shape<m = 16, n = 8, k = 16>
// The partial sums of the 16 warps are added in order to a logit in shared memory,
// which a warp reads.
// CHECK:         nvvm.barrier
// CHECK-COUNT-16: arith.addf
// CHECK-NOT:     arith.addf
// CHECK:         llvm.store %{{.*}} : f32, !llvm.ptr<3>
// CHECK:         llvm.load %{{.*}} : !llvm.ptr<3> -> f32
// CHECK:         llvm.store %{{.*}} : i32, !llvm.ptr<1>
// CHECK:         llvm.atomicrmw add %{{.*}}, %c1_i32 monotonic : !llvm.ptr<3>, i32
// With more than one tile the histogram is stored, otherwise the choices are scattered.
// CHECK:         %[[MORE:.*]] = arith.cmpi sgt, %[[T]], %c32_i32
// CHECK-NEXT:    scf.if %[[MORE]] {
// CHECK:           llvm.getelementptr %[[COUNTS]]
// CHECK:         } else {
// CHECK-NOT:       %[[COUNTS]]
// CHECK:           nvvm.match.sync any
// Another kernel has up to 64 tokens in one block, four tiles at a time.
// CHECK:       llvm.func @router_1(
// CHECK-SAME:    moe.work = {choices = 2 : i64, cluster = 1 : i64, {{.*}}tile_tokens = 64 : i64, {{.*}}whole
// CHECK-COUNT-9: llvm.load %{{.*}} {alignment = 16 : i64} : !llvm.ptr<1> -> vector<8xbf16>
// CHECK-COUNT-8: nvvm.mma.sync
// CHECK:         arith.cmpi sgt, %{{.*}}, %c64_i32
// CHECK:       llvm.func @route_place(

// CHECK-LABEL: func.func @routed(
// CHECK-SAME:    %[[X:.*]]: tensor<?x64xbf16>, %[[W:.*]]: tensor<1x8x64xbf16>)
// CHECK:         %[[T:.*]] = tensor.dim %[[X]], %c0
// CHECK:         %[[SMS:.*]] = moe_rt.multiprocessors
// CHECK:         %[[TILES:.*]] = arith.ceildiv{{[us]i}} %[[T]], %c32
// CHECK:         %[[BLOCKS:.*]] = arith.ceildivui %[[T]], %{{.*}}
// CHECK:         %[[UP:.*]] = arith.cmpi ule, %[[T]], %c64
// CHECK:         %[[BEYOND:.*]] = arith.cmpi ugt, %[[T]], %c32
// CHECK:         %[[WHOLE:.*]] = arith.andi %[[BEYOND]], %[[UP]]
// CHECK:         %[[MOST:.*]] = arith.select %[[WHOLE]], %c64, %c32
// CHECK:         %[[GRID:.*]] = arith.select %[[WHOLE]], %c0, %[[BLOCKS]]
// CHECK:         %[[R0:.*]]:7 = moe_rt.launch @kernels::@router blocks(%[[GRID]]) ins(%[[X]], %[[W]] : {{.*}}) outs({{.*}} : tensor<?x2xf32>, tensor<?x2xi32>, tensor<?xi32>, tensor<9xi32>, tensor<?x2xi32>, tensor<?x8xi32>, tensor<1024xi32>)
// CHECK:         %[[ONE:.*]] = arith.select %[[WHOLE]], %c1, %c0
// CHECK:         %[[R:.*]]:7 = moe_rt.launch @kernels::@router_1 blocks(%[[ONE]]) ins(%[[X]], %[[W]] : {{.*}}) outs(%[[R0]]#0,
// CHECK:         %[[ALONE:.*]] = arith.cmpi ule, %[[T]], %[[MOST]]
// CHECK:         %[[PLACING:.*]] = arith.select %{{.*}}, %c0, %{{.*}}
// CHECK:         %[[P:.*]]:3 = moe_rt.launch @kernels::@route_place blocks(%[[PLACING]]) ins(%[[R]]#1, %[[R]]#5 : {{.*}}) outs(%[[R]]#2, %[[R]]#3, %[[R]]#4 :
// CHECK-NOT:     moe_rt.launch
// CHECK:         return %[[R]]#0, %[[P]]#0, %[[P]]#1, %[[P]]#2
// One tile of eight experts needs no cluster.
// CLUSTER-LABEL: func.func @routed(
// CLUSTER-COUNT-3: moe_rt.launch
// CLUSTER-NOT:     moe_rt.launch
// CLUSTER:         return
func.func @routed(%x: tensor<?x64xbf16>, %w: tensor<1x8x64xbf16>)
    -> (tensor<?x2xf32>, tensor<?xi32>, tensor<9xi32>, tensor<?x2xi32>) {
  %c0 = arith.constant 0 : index
  %t = tensor.dim %x, %c0 : tensor<?x64xbf16>
  %e = tensor.empty(%t) : tensor<?x8xf32>
  %l = moe.grouped_matmul %x weights(%w : tensor<1x8x64xbf16>) transposed outs(%e : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x64xbf16> -> tensor<?x8xf32>
  %weights, %ids = moe.gate %l top_k(2) : tensor<?x8xf32>
  %n, %o, %p = moe.route %ids experts(8) : tensor<?x2xi32>
  return %weights, %n, %o, %p : tensor<?x2xf32>, tensor<?xi32>, tensor<9xi32>, tensor<?x2xi32>
}

// -----

// MN-major f32 weights: FMAs with k split over the lanes. Four blocks of a cluster
// split the experts of a tile; the first collects the logits.
// CHECK:       llvm.func @router(
// CHECK:         llvm.load %{{.*}} {alignment = 16 : i64} : !llvm.ptr<1> -> vector<4xf32>
// CHECK-NOT:     nvvm.mma.sync
// CHECK-COUNT-128: llvm.intr.fma
// CHECK-COUNT-31: nvvm.shfl.sync bfly
// CHECK-LABEL: func.func @fma(
// CHECK:         moe_rt.launch @kernels::@router blocks
// CHECK-NOT:     moe_rt.launch
// CHECK:         return
// CLUSTER:       llvm.func @router(
// CLUSTER-SAME:    nvvm.cluster_dim = array<i32: 4, 1, 1>
// CLUSTER:         nvvm.cluster.arrive {aligned}
// CLUSTER-NEXT:    nvvm.cluster.wait {aligned}
// CLUSTER:         nvvm.mapa %{{.*}}, %c0_i32 : !llvm.ptr<3> -> !llvm.ptr<7>
// CLUSTER:         llvm.store %{{.*}} : f32, !llvm.ptr<7>
// CLUSTER:         nvvm.cluster.arrive {aligned}
// CLUSTER-NEXT:    nvvm.cluster.wait {aligned}
// CLUSTER:       llvm.func @router_1(
// CLUSTER-NOT:     nvvm.cluster
// CLUSTER-LABEL: func.func @fma(
// CLUSTER:         %[[SMS:.*]] = moe_rt.multiprocessors
// CLUSTER:         %[[FEW:.*]] = arith.cmpi ule, %{{.*}}, %[[SMS]]
// CLUSTER:         %[[SPREAD:.*]] = arith.select %[[FEW]], %{{.*}}, %c0
// CLUSTER:         moe_rt.launch @kernels::@router blocks(%[[SPREAD]])
// CLUSTER:         %[[WHOLE:.*]] = arith.select %[[FEW]], %c0, %{{.*}}
// CLUSTER:         moe_rt.launch @kernels::@router_1 blocks(%[[WHOLE]])
// CLUSTER-NOT:     moe_rt.launch
// CLUSTER:         return
func.func @fma(%x: tensor<?x64xf32>, %w: tensor<1x64x32xf32>)
    -> (tensor<?x2xf32>, tensor<?x2xi32>) {
  %c0 = arith.constant 0 : index
  %t = tensor.dim %x, %c0 : tensor<?x64xf32>
  %e = tensor.empty(%t) : tensor<?x32xf32>
  %l = moe.grouped_matmul %x weights(%w : tensor<1x64x32xf32>) outs(%e : tensor<?x32xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x64xf32> -> tensor<?x32xf32>
  %weights, %ids = moe.gate %l top_k(2) : tensor<?x32xf32>
  return %weights, %ids : tensor<?x2xf32>, tensor<?x2xi32>
}

// -----

// The capacity is an argument of both kernels; with priority(choice) there is a bucket
// for each expert and choice.
// CHECK:       llvm.func @router({{.*}}%[[T:[a-z0-9]+]]: i32, %{{[a-z0-9]+}}: i32, %{{[a-z0-9]+}}: i32, %[[C:[a-z0-9]+]]: i32, %{{[a-z0-9]+}}: i64)
// CHECK:         arith.cmpi sgt, %[[T]], %c32_i32
// CHECK:         } else {
// CHECK:           scf.for {{.*}} iter_args(%{{.*}} = %{{.*}}, %{{.*}} = %[[C]])
// CHECK:       llvm.func @route_place(
// CHECK-LABEL: func.func @capacity(
// CHECK:         %[[ROUNDED:.*]] = arith.fptosi %{{.*}} : f64 to i64
// CHECK:         %[[C:.*]] = arith.maxsi
// CHECK:         %[[ROWS:.*]] = arith.index_cast %{{.*}} : index to i32
// CHECK-NEXT:    %[[C32:.*]] = arith.index_cast %[[C]] : index to i32
// CHECK-NEXT:    moe_rt.launch @kernels::@router blocks({{.*}} tensor<?x16xi32>, tensor<1024xi32>) scalars(%{{.*}}, %{{.*}}, %[[ROWS]], %[[C32]], %c1024 : i32, i32, i32, i32, index)
// CHECK:         moe_rt.launch @kernels::@route_place {{.*}} scalars(%{{.*}}, %[[ROWS]], %{{.*}}, %[[C32]] : i32, i32, i32, i32)
// CHECK-NOT:     moe_rt.launch
func.func @capacity(%x: tensor<?x64xf32>, %w: tensor<1x8x64xf32>, %e: tensor<?x8xf32>)
    -> tensor<9xi32> {
  %l = moe.grouped_matmul %x weights(%w : tensor<1x8x64xf32>) transposed outs(%e : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x64xf32> -> tensor<?x8xf32>
  %weights, %ids = moe.gate %l top_k(2) : tensor<?x8xf32>
  %n, %o, %p = moe.route %ids experts(8) capacity(<factor = 1.0>) priority(choice) : tensor<?x2xi32>
  return %o : tensor<9xi32>
}

// -----

// More than a wave of tiles of a router with many experts: cp.async copies tokens and
// weights to shared memory, in stages of 64 elements, and a warp adds up the parts of k
// that are those of the 16 warps of the other kernels. The choices are scattered by
// another kernel.
// CHECK:       llvm.func @router_1(
// CHECK-SAME:    moe.work = {{{.*}}staged, tensor_cores, tile_tokens = 128 : i64
// CHECK-COUNT-2: nvvm.cp.async.commit.group
// CHECK-NOT:     nvvm.cp.async.commit.group
// CHECK:         scf.for {{.*}} %c16_i32 step %c1_i32 iter_args
// CHECK:           scf.for
// CHECK:             nvvm.cp.async.wait.group 1
// CHECK-NEXT:        nvvm.barrier
// CHECK:             nvvm.cp.async.shared.global {{.*}} 16, cache = cg
// CHECK:             llvm.load %{{.*}} {alignment = 16 : i64} : !llvm.ptr<3> -> vector<8xbf16>
// CHECK:             nvvm.mma.sync
// CHECK:           arith.addf
// CHECK:         llvm.getelementptr %{{.*}} -> !llvm.ptr<3>, f32
// CHECK-NOT:     nvvm.match.sync
// CHECK:       llvm.func @route_place(
// CHECK-LABEL: func.func @staged(
// CHECK:         %[[SMS:.*]] = moe_rt.multiprocessors
// CHECK:         %[[TILES:.*]] = arith.ceildiv{{[us]i}} %{{.*}}, %c32
// CHECK:         %[[MORE:.*]] = arith.cmpi ugt, %[[TILES]], %[[SMS]]
// CHECK:         arith.select %[[MORE]], %c0, %{{.*}} : index
// CHECK:         moe_rt.launch @kernels::@router blocks
// CHECK:         %[[GRID:.*]] = arith.select %[[MORE]], %{{.*}}, %c0 : index
// CHECK:         moe_rt.launch @kernels::@router_1 blocks(%[[GRID]])
// CHECK:         moe_rt.launch @kernels::@route_place
func.func @staged(%x: tensor<?x2048xbf16>, %w: tensor<1x128x2048xbf16>, %e: tensor<?x128xf32>)
    -> (tensor<?x2xf32>, tensor<?xi32>) {
  %l = moe.grouped_matmul %x weights(%w : tensor<1x128x2048xbf16>) transposed outs(%e : tensor<?x128xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x2048xbf16> -> tensor<?x128xf32>
  %weights, %ids = moe.gate %l top_k(2) : tensor<?x128xf32>
  %n, %o, %p = moe.route %ids experts(128) : tensor<?x2xi32>
  return %weights, %n : tensor<?x2xf32>, tensor<?xi32>
}

// -----

// If tokens are independent, the last ones may not be live: they get no choices, and
// tiles without a live token are skipped.
// CHECK:       llvm.func @router(
// CHECK-SAME:    %[[T:[a-z0-9]+]]: i32, %{{[a-z0-9]+}}: i32, %[[ADDRESS:[a-z0-9]+]]: i64)
// CHECK-SAME:    moe.live_tokens
// CHECK:         %[[GIVEN:.*]] = arith.cmpi ne, %[[ADDRESS]], %c0_i64
// CHECK:         %[[LIVE:.*]] = scf.if %[[GIVEN]] -> (i32) {
// CHECK-NEXT:      %[[P:.*]] = llvm.inttoptr %[[ADDRESS]] : i64 to !llvm.ptr<1>
// CHECK-NEXT:      %[[READ:.*]] = llvm.load %[[P]] : !llvm.ptr<1> -> i32
// CHECK-NEXT:      %[[NONE:.*]] = arith.maxsi %[[READ]], %c0_i32
// CHECK-NEXT:      %[[HELD:.*]] = arith.minsi %[[NONE]], %[[T]]
// CHECK-NEXT:      scf.yield %[[HELD]]
// CHECK-NEXT:    } else {
// CHECK-NEXT:      scf.yield %[[T]]
// CHECK:         %[[LEFT:.*]] = arith.subi %[[LIVE]], %[[TILE:.*]] : i32
// CHECK:         %[[VALID:.*]] = arith.maxsi %{{.*}}, %c0_i32
// CHECK:         arith.cmpi eq, %[[VALID]], %c0_i32
// CHECK:         llvm.store %c-1_i32, %{{.*}} : i32, !llvm.ptr<1>
// The launch does not pass that scalar.
// CHECK-LABEL: func.func @live(
// CHECK:         moe_rt.launch @kernels::@router {{.*}} scalars(%{{.*}}, %{{.*}} : i32, i32)
func.func @live(%x: tensor<?x64xf32>, %w: tensor<1x8x64xf32>, %e: tensor<?x8xf32>)
    -> tensor<?x2xi32> attributes {moe.independent_tokens} {
  %l = moe.grouped_matmul %x weights(%w : tensor<1x8x64xf32>) transposed outs(%e : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x64xf32> -> tensor<?x8xf32>
  %weights, %ids = moe.gate %l top_k(2) : tensor<?x8xf32>
  return %ids : tensor<?x2xi32>
}

// -----

// CHECK:       llvm.func @gate(%{{.*}}: i64, %[[ADDRESS:[a-z0-9]+]]: i64)
// CHECK-SAME:    moe.live_tokens
// CHECK:         llvm.inttoptr %[[ADDRESS]]
// CHECK:         llvm.store %c-1_i32, %{{.*}} : i32, !llvm.ptr<1>
// CHECK-LABEL: func.func @live_gate(
// CHECK:         moe_rt.launch @kernels::@gate {{.*}} scalars(%{{.*}} : index)
func.func @live_gate(%l: tensor<?x8xf32>) -> tensor<?x2xi32> attributes {moe.independent_tokens} {
  %weights, %ids = moe.gate %l top_k(2) : tensor<?x8xf32>
  return %ids : tensor<?x2xi32>
}
