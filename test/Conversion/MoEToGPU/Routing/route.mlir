// RUN: moe-opt %s -convert-moe-to-gpu -canonicalize -cse -split-input-file \
// RUN:   | FileCheck %s --implicit-check-not=moe.route

// The first kernel computes a histogram over the eight experts for each chunk; choices
// of no expert have a bucket of their own.
// CHECK:       llvm.func @route_count(%[[IDS:[a-z0-9]+]]: !llvm.ptr<1>, %[[COUNTS:[a-z0-9]+]]: !llvm.ptr<1>, %[[TOTAL:[a-z0-9]+]]: i32)
// CHECK-SAME:    {gpu.kernel, moe.shared_bytes = 36 : i64, moe.work = {{.*}}, nvvm.kernel, nvvm.maxntid = array<i32: 256, 1, 1>
// CHECK:         scf.for %{{.*}} = %{{.*}} to %c9_i32 step %c256_i32
// CHECK:           llvm.store %c0_i32
// CHECK:         nvvm.barrier
// CHECK:         %[[FIRST:.*]] = arith.muli %[[BLOCK:.*]], %c2048_i32
// CHECK-NEXT:    %[[REST:.*]] = arith.subi %[[TOTAL]], %[[FIRST]]
// CHECK-NEXT:    %[[OWN:.*]] = arith.minsi %[[REST]], %c2048_i32
// CHECK-NEXT:    %[[END:.*]] = arith.addi %[[FIRST]], %[[OWN]]
// CHECK:         scf.for %[[NUMBER:.*]] = %{{.*}} to %[[END]] step %c256_i32
// CHECK-NEXT:      %[[P:.*]] = llvm.getelementptr %[[IDS]][%[[NUMBER]]]
// CHECK-NEXT:      %[[ID:.*]] = llvm.load %[[P]]
// CHECK-NEXT:      %[[VALID:.*]] = arith.cmpi ult, %[[ID]], %c8_i32
// CHECK-NEXT:      %[[OF:.*]] = arith.select %[[VALID]], %[[ID]], %c8_i32
// CHECK:           llvm.atomicrmw add %{{.*}}, %c1_i32 monotonic : !llvm.ptr<3>, i32
// CHECK:         nvvm.barrier
// CHECK:         %[[ROW:.*]] = arith.muli %[[BLOCK]], %c8_i32
// CHECK:         llvm.store %{{.*}}, %{{.*}} : i32, !llvm.ptr<1>

// The second adds up the histograms of earlier chunks, or counts if there is one chunk.
// CHECK:       llvm.func @route_place(%[[IDS:[a-z0-9]+]]: !llvm.ptr<1>, %[[COUNTS:[a-z0-9]+]]: !llvm.ptr<1>, %[[TOKENS:[a-z0-9]+]]: !llvm.ptr<1>, %[[OFFSETS:[a-z0-9]+]]: !llvm.ptr<1>, %[[POSITIONS:[a-z0-9]+]]: !llvm.ptr<1>, %[[TOTAL:[a-z0-9]+]]: i32, %[[ROWS:[a-z0-9]+]]: i32, %[[CHUNK:[a-z0-9]+]]: i32)
// CHECK-SAME:    moe.shared_bytes = 8392 : i64
// CHECK:         %[[BLOCK:.*]] = nvvm.read.ptx.sreg.ctaid.x
// CHECK:         %[[BLOCKS:.*]] = nvvm.read.ptx.sreg.nctaid.x
// CHECK:         %[[ALONE:.*]] = arith.cmpi eq, %[[BLOCKS]], %c1_i32
// CHECK-NEXT:    scf.if %[[ALONE]] {
// CHECK:           llvm.atomicrmw add
// CHECK:         } else {
// 32 threads share the histograms of an expert; each loads eight at once.
// CHECK:           %[[SUMS:.*]]:2 = scf.for %[[OTHER:.*]] = %{{.*}} to %[[BLOCKS]] step %c256_i32
// CHECK:             %[[P:.*]] = llvm.getelementptr %[[COUNTS]]
// CHECK-NEXT:        %[[FOUND:.*]] = llvm.load %[[P]]
// CHECK:             %[[BEFORE:.*]] = arith.cmpi slt, %[[OTHER]], %[[BLOCK]]
// CHECK:             arith.select %[[BEFORE]], %[[FOUND]], %c0_i32
// CHECK-COUNT-7:     llvm.load
// CHECK-NOT:         llvm.load
// CHECK:             scf.yield
// CHECK:           llvm.atomicrmw add %{{.*}}, %[[SUMS]]#0 monotonic
// CHECK:           llvm.atomicrmw add %{{.*}}, %[[SUMS]]#1 monotonic
// CHECK:         nvvm.barrier
// The block scans the rows of the experts, one a thread; one block writes all nine offsets.
// CHECK-COUNT-5: nvvm.shfl.sync
// CHECK:         llvm.getelementptr %[[OFFSETS]][%{{.*}}]
// CHECK:         llvm.getelementptr %[[OFFSETS]][8]
// CHECK:         nvvm.barrier
// Among 32 choices those of one expert are ordered by lane.
// CHECK:         arith.muli %[[BLOCK]], %[[CHUNK]]
// CHECK:         scf.for
// CHECK:           %[[LOWER:.*]] = nvvm.read.ptx.sreg.lanemask.lt
// CHECK-NEXT:      %[[SAME:.*]] = nvvm.match.sync any
// CHECK-NEXT:      %[[EARLIER:.*]] = arith.andi %[[SAME]], %[[LOWER]]
// CHECK-NEXT:      %[[RANK:.*]] = llvm.intr.ctpop(%[[EARLIER]])
// CHECK:           %[[ROW:.*]] = arith.addi %{{.*}}, %[[RANK]]
// CHECK:           nvvm.bar.warp.sync
// CHECK:           llvm.intr.ctpop(%[[SAME]])
// CHECK:           nvvm.bar.warp.sync
// CHECK:           %[[HAS:.*]] = arith.cmpi slt, %{{.*}}, %c8_i32
// CHECK-NEXT:      %[[POSITION:.*]] = arith.select %[[HAS]], %[[ROW]], %c-1_i32
// CHECK-NEXT:      %[[P:.*]] = llvm.getelementptr %[[POSITIONS]]
// CHECK-NEXT:      llvm.store %[[POSITION]], %[[P]]
// CHECK-NEXT:      scf.if %[[HAS]] {
// CHECK-NEXT:        %[[TOKEN:.*]] = arith.divui %{{.*}}, %c3_i32
// CHECK-NEXT:        %[[P:.*]] = llvm.getelementptr %[[TOKENS]][%[[ROW]]]
// CHECK-NEXT:        llvm.store %[[TOKEN]], %[[P]]
// Rows without a choice.
// CHECK:         scf.for %[[R:.*]] = %{{.*}} to %[[ROWS]]
// CHECK-NEXT:      %[[P:.*]] = llvm.getelementptr %[[TOKENS]][%[[R]]]
// CHECK-NEXT:      llvm.store %c-1_i32, %[[P]]

// With one chunk the grid of the first kernel is empty; offsets are written without
// tokens, too.
// CHECK-LABEL: func.func @route(
// CHECK-SAME:    %[[I:.*]]: tensor<?x3xi32>)
// CHECK:         %[[T:.*]] = tensor.dim %[[I]], %c0
// CHECK:         %[[CHOICES:.*]] = arith.muli %[[T]], %c3
// CHECK:         %[[CHUNKS:.*]] = arith.ceildiv{{[us]i}} %[[CHOICES]], %c2048
// CHECK:         %[[ONE:.*]] = arith.cmpi eq, %[[CHUNKS]], %c1
// CHECK:         %[[COUNTING:.*]] = arith.select %[[ONE]], %c0, %[[CHUNKS]]
// CHECK:         %[[EMPTY:.*]] = tensor.empty(%[[CHUNKS]]) : tensor<?x8xi32>
// CHECK:         %[[TOTAL:.*]] = arith.index_cast %[[CHOICES]] : index to i32
// CHECK:         %[[COUNTS:.*]] = moe_rt.launch @kernels::@route_count blocks(%[[COUNTING]]) ins(%[[I]] : tensor<?x3xi32>) outs(%[[EMPTY]] : tensor<?x8xi32>) scalars(%[[TOTAL]] : i32)
// CHECK:         %[[PLACING:.*]] = arith.maxui %[[CHUNKS]], %c1
// CHECK:         %[[R:.*]]:3 = moe_rt.launch @kernels::@route_place blocks(%[[PLACING]]) ins(%[[I]], %[[COUNTS]] : {{.*}}) outs(%{{.*}} : tensor<?xi32>, tensor<9xi32>, tensor<?x3xi32>) scalars(%[[TOTAL]], %[[TOTAL]], %c2048_i32 : i32, i32, i32)
// CHECK-NEXT:    return %[[R]]#0, %[[R]]#1, %[[R]]#2
func.func @route(%i: tensor<?x3xi32>) -> (tensor<?xi32>, tensor<9xi32>, tensor<?x3xi32>) {
  %n, %o, %p = moe.route %i experts(8) : tensor<?x3xi32>
  return %n, %o, %p : tensor<?xi32>, tensor<9xi32>, tensor<?x3xi32>
}

// -----

// Only the first two choices of each token count.
// CHECK:       llvm.func @route_count(
// CHECK:         %[[VALID:.*]] = arith.cmpi ult, %{{.*}}, %c8_i32
// CHECK-NEXT:    %[[K:.*]] = arith.remui %{{.*}}, %c3_i32
// CHECK-NEXT:    %[[KEPT:.*]] = arith.cmpi ult, %[[K]], %c2_i32
// CHECK-NEXT:    %[[BOTH:.*]] = arith.andi %[[VALID]], %[[KEPT]]
// CHECK-NEXT:    arith.select %[[BOTH]], %{{.*}}, %c8_i32
// CHECK-LABEL: func.func @some_choices(
func.func @some_choices(%i: tensor<?x3xi32>) -> (tensor<?xi32>, tensor<9xi32>, tensor<?x3xi32>) {
  %n, %o, %p = moe.route %i experts(8) choices(2) : tensor<?x3xi32>
  return %n, %o, %p : tensor<?xi32>, tensor<9xi32>, tensor<?x3xi32>
}

// -----

// A static number of tokens, in three chunks.
// CHECK-LABEL: func.func @static(
// CHECK:         %[[EMPTY:.*]] = tensor.empty() : tensor<3x4xi32>
// CHECK:         moe_rt.launch @kernels::@route_count blocks(%c3) ins(%{{.*}} : tensor<3000x2xi32>) outs(%[[EMPTY]] : tensor<3x4xi32>) scalars(%c6000_i32 : i32)
// CHECK:         moe_rt.launch @kernels::@route_place blocks(%c3) {{.*}} outs(%{{.*}} : tensor<6000xi32>, tensor<5xi32>, tensor<3000x2xi32>) scalars(%c6000_i32, %c6000_i32, %c2048_i32 : i32, i32, i32)
func.func @static(%i: tensor<3000x2xi32>) -> (tensor<6000xi32>, tensor<5xi32>, tensor<3000x2xi32>) {
  %n, %o, %p = moe.route %i experts(4) : tensor<3000x2xi32>
  return %n, %o, %p : tensor<6000xi32>, tensor<5xi32>, tensor<3000x2xi32>
}

// -----

// An expert's rows end at its capacity; a choice beyond has no row.
// CHECK:       llvm.func @route_place({{.*}}: i32, %[[C:[a-z0-9]+]]: i32)
// CHECK-SAME:    moe.shared_bytes = 8392 : i64
// CHECK:         arith.minsi %{{.*}}, %[[C]] : i32
// CHECK-COUNT-1: nvvm.match.sync any
// CHECK:         %[[HAS:.*]] = arith.cmpi slt, %{{.*}}, %c8_i32
// CHECK:         %[[FREE:.*]] = arith.cmpi slt, %[[ROW:.*]], %{{.*}} : i32
// CHECK-NEXT:    %[[KEEPS:.*]] = arith.andi %[[HAS]], %[[FREE]]
// CHECK-NEXT:    arith.select %[[KEEPS]], %[[ROW]], %c-1_i32
// CHECK-LABEL: func.func @capacity(
// CHECK:         moe_rt.launch @kernels::@route_count {{.*}} outs(%{{.*}} : tensor<?x8xi32>)
// CHECK:         moe_rt.launch @kernels::@route_place {{.*}} scalars(%{{.*}}, %{{.*}}, %c2048_i32, %c5_i32 : i32, i32, i32, i32)
func.func @capacity(%i: tensor<?x3xi32>) -> (tensor<?xi32>, tensor<9xi32>, tensor<?x3xi32>) {
  %n, %o, %p = moe.route %i experts(8) capacity(<fixed = 5>) : tensor<?x3xi32>
  return %n, %o, %p : tensor<?xi32>, tensor<9xi32>, tensor<?x3xi32>
}

// -----

// First choices before second ones: a bucket for each expert and choice. A bucket keeps
// what earlier choices of the expert left of the capacity.
// CHECK:       llvm.func @route_count(
// CHECK:         %[[K:.*]] = arith.remui %{{.*}}, %c3_i32
// CHECK:         %[[FIRST:.*]] = arith.muli %[[K]], %c8_i32
// CHECK-NEXT:    %[[BUCKET:.*]] = arith.addi %[[FIRST]], %[[ID:.*]] : i32
// CHECK-NEXT:    arith.select %{{.*}}, %[[BUCKET]], %c16_i32
// CHECK:       llvm.func @route_place({{.*}}: i32, %[[C:[a-z0-9]+]]: i32)
// CHECK-SAME:    moe.shared_bytes = 8456 : i64
// CHECK:         scf.for %{{.*}} iter_args(%[[ROW:.*]] = %{{.*}}, %[[LEFT:.*]] = %[[C]])
// CHECK:           %[[TOTAL:.*]] = llvm.load
// CHECK-NEXT:      %[[KEPT:.*]] = arith.minsi %[[TOTAL]], %[[LEFT]]
// CHECK:           %[[EARLIER:.*]] = llvm.load
// CHECK-NEXT:      %[[MORE:.*]] = arith.subi %[[KEPT]], %[[EARLIER]]
// CHECK-NEXT:      llvm.store %[[MORE]]
// CHECK:           arith.minsi %[[EARLIER]], %[[KEPT]]
// CHECK:           arith.subi %[[LEFT]], %[[KEPT]]
// CHECK:         %[[BEFORE:.*]] = llvm.load
// CHECK:         nvvm.match.sync any
// CHECK:         %[[KEEPS:.*]] = arith.andi %{{.*}} : i1
// CHECK-NEXT:    %[[OF:.*]] = arith.remui %{{.*}}, %c8_i32
// CHECK-NEXT:    %[[EXPERT:.*]] = arith.select %[[KEEPS]], %[[OF]], %c16_i32
// CHECK:         nvvm.match.sync any %{{.*}}, %[[EXPERT]]
// CHECK:         arith.select %[[KEEPS]], %{{.*}}, %c-1_i32
// CHECK-LABEL: func.func @choices_first(
// CHECK:         moe_rt.launch @kernels::@route_count {{.*}} outs(%{{.*}} : tensor<?x16xi32>)
func.func @choices_first(%i: tensor<?x3xi32>) -> (tensor<?xi32>, tensor<9xi32>, tensor<?x3xi32>) {
  %n, %o, %p = moe.route %i experts(8) capacity(<fixed = 5>) priority(choice) choices(2) : tensor<?x3xi32>
  return %n, %o, %p : tensor<?xi32>, tensor<9xi32>, tensor<?x3xi32>
}

// -----

// The largest weights are kept: a block for each expert finds the threshold, with NaN
// as the smallest value, and drops the other choices ahead of the routing.
// CHECK:       llvm.func @route_keep(%[[IDS:[a-z0-9]+]]: !llvm.ptr<1>, %[[WEIGHTS:[a-z0-9]+]]: !llvm.ptr<1>, %[[KEPT:[a-z0-9]+]]: !llvm.ptr<1>, %[[TOTAL:[a-z0-9]+]]: i32, %[[C:[a-z0-9]+]]: i32)
// CHECK:         %[[EXPERT:.*]] = nvvm.read.ptx.sreg.ctaid.x
// CHECK:         %[[LEAST:.*]]:3 = scf.for {{.*}} iter_args(%{{.*}} = %c0_i32, %{{.*}} = %c0_i32, %[[LEFT:.*]] = %[[C]])
// CHECK:           scf.for %{{.*}} = %{{.*}} to %[[TOTAL]]
// CHECK:             arith.cmpf uno
// CHECK:             arith.addf %{{.*}}, %cst : f32
// CHECK-NEXT:        %[[BITS:.*]] = arith.bitcast %{{.*}} : f32 to i32
// CHECK-NEXT:        %[[SIGN:.*]] = arith.shrsi %[[BITS]], %c31_i32
// CHECK-NEXT:        %[[FLIPS:.*]] = arith.ori %[[SIGN]], %c-2147483648_i32
// CHECK-NEXT:        arith.xori %[[BITS]], %[[FLIPS]]
// CHECK:             llvm.atomicrmw add
// CHECK:         scf.for {{.*}} iter_args(%[[SEEN:.*]] = %c0_i32)
// CHECK:           arith.cmpi ult, %[[LEAST]]#0, %[[KEY:.*]] : i32
// CHECK:           arith.cmpi eq, %[[KEY]], %[[LEAST]]#0
// CHECK:           arith.cmpi slt, %{{.*}}, %[[LEAST]]#2
// CHECK:           llvm.getelementptr %[[KEPT]]
// CHECK-LABEL: func.func @largest(
// CHECK:         %[[K:.*]] = moe_rt.launch @kernels::@route_keep blocks(%c8) ins(%{{.*}}, %{{.*}} : tensor<?x2xi32>, tensor<?x2xbf16>) outs(%{{.*}} : tensor<?x2xi32>)
// CHECK:         moe_rt.launch @kernels::@route_count {{.*}} ins(%[[K]] :
// CHECK:         moe_rt.launch @kernels::@route_place {{.*}} ins(%[[K]],
func.func @largest(%i: tensor<?x2xi32>, %w: tensor<?x2xbf16>) -> (tensor<?xi32>, tensor<9xi32>, tensor<?x2xi32>) {
  %n, %o, %p = moe.route %i weights(%w : tensor<?x2xbf16>) experts(8) capacity(<fixed = 5>) priority(probability) : tensor<?x2xi32>
  return %n, %o, %p : tensor<?xi32>, tensor<9xi32>, tensor<?x2xi32>
}

// -----

// All tokens request their first choice, then those without a slot their second: one
// block assigns slots to 32 tokens at a time. A kept choice counts, whichever it is.
// CHECK:       llvm.func @route_keep_next(%[[IDS:[a-z0-9]+]]: !llvm.ptr<1>, %[[KEPT:[a-z0-9]+]]: !llvm.ptr<1>, %[[TOTAL:[a-z0-9]+]]: i32, %[[C:[a-z0-9]+]]: i32)
// CHECK-SAME:    moe.shared_bytes = 8228 : i64
// CHECK:         %[[TOKENS:.*]] = arith.divui %[[TOTAL]], %c3_i32
// CHECK:         scf.for %[[K:.*]] = %c0_i32 to %c3_i32 step %c1_i32
// CHECK:           scf.for %{{.*}} = %c0_i32 to %[[TOKENS]] step %c2048_i32
// CHECK:             %[[PLACED:.*]] = scf.for %{{.*}} = %c0_i32 to %[[K]]
// CHECK:             %[[OPEN:.*]] = arith.cmpi slt, %[[PLACED]], %c1_i32
// CHECK:             nvvm.match.sync any
// CHECK:             arith.cmpi slt, %{{.*}}, %[[C]]
// CHECK:       llvm.func @route_count(
// CHECK-NOT:     arith.cmpi ult, %{{.*}}, %c1_i32
// CHECK-LABEL: func.func @next_choice(
// CHECK:         %[[K:.*]] = moe_rt.launch @kernels::@route_keep_next blocks(%c1)
// CHECK:         moe_rt.launch @kernels::@route_count {{.*}} ins(%[[K]] : {{.*}} outs(%{{.*}} : tensor<?x8xi32>)
// CHECK:         moe_rt.launch @kernels::@route_place {{.*}} ins(%[[K]],
func.func @next_choice(%i: tensor<?x3xi32>) -> (tensor<?xi32>, tensor<9xi32>, tensor<?x3xi32>) {
  %n, %o, %p = moe.route %i experts(8) capacity(<fixed = 5>) priority(choice) overflow(next_choice) choices(1) : tensor<?x3xi32>
  return %n, %o, %p : tensor<?xi32>, tensor<9xi32>, tensor<?x3xi32>
}
