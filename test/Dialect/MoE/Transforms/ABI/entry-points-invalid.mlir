// RUN: moe-opt %s -moe-entry-points -split-input-file -verify-diagnostics

// expected-error @+1 {{expected a C interface of 'layer'; run llvm-request-c-wrappers before the conversion to llvm}}
llvm.func @layer(%a: !llvm.ptr) attributes {moe.signature = #moe.signature} {
  llvm.return
}

// -----

// expected-error @+1 {{operand type mismatch for operand 0: '!llvm.ptr' != 'i32'}}
llvm.func @layer(%a: i32) attributes {moe.signature = #moe.signature} {
  llvm.return
}
llvm.func @_mlir_ciface_layer(%a: i32) {
  llvm.return
}

// -----

// expected-error @+1 {{redefinition of symbol named 'moe_entry_layer'}}
llvm.func @layer() attributes {moe.signature = #moe.signature} {
  llvm.return
}
llvm.func @_mlir_ciface_layer() {
  llvm.return
}
// expected-note @+1 {{see existing symbol definition here}}
llvm.func @moe_entry_layer() {
  llvm.return
}
