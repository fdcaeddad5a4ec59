// The dialect acme, and how its operations are raised.

#ifndef ACME_H
#define ACME_H

#include "moe/Transforms/RaisableOpInterface.h"

#include "mlir/Bytecode/BytecodeOpInterface.h"
#include "mlir/IR/BuiltinTypes.h"
#include "mlir/IR/Dialect.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"

#include "AcmeDialect.h.inc"
#define GET_OP_CLASSES
#include "AcmeOps.h.inc"

namespace acme {
/// The dialect with its models of the interface.
void registerDialect(mlir::DialectRegistry &registry);
} // namespace acme

#endif // ACME_H
