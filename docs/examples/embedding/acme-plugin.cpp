// AcmePlugin.so: the dialect acme for tools that have loaded MoEPlugin.so,
// whose symbols it uses.

#include "Acme.h"

#include "mlir/Tools/Plugins/DialectPlugin.h"

extern "C" mlir::DialectPluginLibraryInfo mlirGetDialectPluginInfo() {
  return {MLIR_PLUGIN_API_VERSION, "Acme", "1",
          [](mlir::DialectRegistry *registry) {
            acme::registerDialect(*registry);
          }};
}
