// RUN: moe-opt %s -moe-linalg-to-tasks=elements=0 -verify-diagnostics

// expected-error @below {{expected at least 1 element in a task, got 0}}
module {
}
