// The distribution's own mlir-opt learns the dialect, its verifiers and its passes
// from one shared object, and runs them between its own.

// RUN: mlir-opt %s --load-dialect-plugin=%moe_plugin -split-input-file \
// RUN:   -verify-diagnostics -canonicalize | FileCheck %s --check-prefix=DIALECT
// RUN: mlir-opt %s --load-dialect-plugin=%moe_plugin --load-pass-plugin=%moe_plugin \
// RUN:   -split-input-file -verify-diagnostics \
// RUN:   --pass-pipeline='builtin.module(convert-moe-to-linalg,canonicalize,cse,one-shot-bufferize{bufferize-function-boundaries})' \
// RUN:   | FileCheck %s --check-prefix=LOWERED
// RUN: mlir-opt %s --load-dialect-plugin=%moe_plugin --load-pass-plugin=%moe_plugin \
// RUN:   -split-input-file -verify-diagnostics \
// RUN:   --pass-pipeline='builtin.module(moe-reference)' \
// RUN:   | FileCheck %s --check-prefix=PIPELINE
// Pipelines with options, between passes of the tool and nested in its pipeline.
// RUN: mlir-opt %s --load-dialect-plugin=%moe_plugin --load-pass-plugin=%moe_plugin \
// RUN:   -split-input-file -verify-diagnostics --dump-pass-pipeline \
// RUN:   --pass-pipeline='builtin.module(func.func(canonicalize),moe-raise-operations,moe-fuse{keep-formats=true},cse,moe-cpu{vector-bits=512 f16-conversions=true})' \
// RUN:   2> %t.passes | FileCheck %s --check-prefix=PIPELINE
// RUN: FileCheck %s --check-prefix=OPTIONS --input-file %t.passes
// RUN: not mlir-opt %S/../Package/Inputs/layer.mlir --load-dialect-plugin=%moe_plugin --load-pass-plugin=%moe_plugin \
// RUN:   --pass-pipeline='builtin.module(moe-cpu{vector-bites=512})' 2>&1 | FileCheck %s --check-prefix=BADOPTION
// RUN: mlir-opt --load-dialect-plugin=%moe_plugin --show-dialects \
// RUN:   | FileCheck %s --check-prefix=LISTED
// RUN: mlir-opt --load-pass-plugin=%moe_plugin --list-passes \
// RUN:   | FileCheck %s --check-prefix=PASSES
// As its help lists them: passes and pipelines as options, in their order, with
// options of their own.
// RUN: mlir-opt --load-pass-plugin=%moe_plugin --help | FileCheck %s --check-prefix=HELP
// RUN: mlir-opt %s --load-dialect-plugin=%moe_plugin --load-pass-plugin=%moe_plugin \
// RUN:   -split-input-file -verify-diagnostics --moe-reference | FileCheck %s --check-prefix=PIPELINE
// RUN: mlir-opt %s --load-dialect-plugin=%moe_plugin --load-pass-plugin=%moe_plugin \
// RUN:   -split-input-file -verify-diagnostics --moe-plan-capacity='tokens=0:9 flops=1e9 bandwidth=1e9' --moe-fuse \
// RUN:   | FileCheck %s --check-prefix=FUSED
// RUN: mlir-opt %s --load-dialect-plugin=%moe_plugin --load-pass-plugin=%moe_plugin \
// RUN:   -split-input-file -verify-diagnostics --moe-cpu=vector-bits=256 | FileCheck %s --check-prefix=PIPELINE
// RUN: not mlir-opt %s --load-dialect-plugin=%moe_plugin --load-pass-plugin=%moe_plugin \
// RUN:   --moe-fuze 2>&1 | FileCheck %s --check-prefix=UNKNOWN
// RUN: not mlir-opt %s --load-dialect-plugin=%moe_plugin --load-pass-plugin=%moe_plugin \
// RUN:   --moe-chunk-tokens=size=4 2>&1 | FileCheck %s --check-prefix=OPTION
// UNSUPPORTED: sanitizer

// LISTED: {{(^|,)}}moe{{(,|$)}}
// PASSES: --convert-moe-to-linalg
// HELP: --moe-fuse
// UNKNOWN: MoEPlugin: error: unknown command line argument '--moe-fuze'
// OPTIONS: moe-fuse-scales{keep-formats=true}
// OPTIONS: convert-moe-to-cpu{{.*}}vector-bits=512
// BADOPTION: error: failed to add `moe-cpu` with options `vector-bites=512`
// OPTION: MoEPlugin: error: {{.*}}size

// DIALECT-LABEL: func.func @route
// DIALECT: %[[WEIGHTS:.*]], %[[IDS:.*]] = moe.gate %{{.*}} top_k(2)
// DIALECT: %[[GROUPED:.*]], %[[OFFSETS:.*]], %[[POSITIONS:.*]] = moe.dispatch %{{.*}}, %[[IDS]] experts(8)
// LOWERED-LABEL: func.func @route
// LOWERED-NOT: moe.
// LOWERED: memref
// PIPELINE: llvm.func @{{.*}}route
// FUSED: func.func @route({{.*}} attributes {moe.plan = {{.*}}max = 9
func.func @route(%logits: tensor<?x8xf32>, %x: tensor<?x16xf32>)
    -> (tensor<?x16xf32>, tensor<9xi32>, tensor<?x2xi32>) {
  %weights, %ids = moe.gate %logits top_k(2) normalize(<sum>) : tensor<?x8xf32>
  %grouped, %offsets, %positions = moe.dispatch %x, %ids experts(8)
      : tensor<?x16xf32>, tensor<?x2xi32>
  %y = moe.combine %grouped, %positions weights(%weights : tensor<?x2xf32>)
      : tensor<?x16xf32>, tensor<?x2xi32>
  return %y, %offsets, %positions : tensor<?x16xf32>, tensor<9xi32>, tensor<?x2xi32>
}

// -----

func.func @too_many(%logits: tensor<?x8xf32>) -> tensor<?x9xi32> {
  // expected-error @+1 {{top_k}}
  %weights, %ids = moe.gate %logits top_k(9) : tensor<?x8xf32>
  return %ids : tensor<?x9xi32>
}
