// RUN: moe-opt %s -moe-vectorize-rows=elements=3 -verify-diagnostics

// expected-error @below {{expected at least 4 elements in a vector, got 3}}
module {
}
