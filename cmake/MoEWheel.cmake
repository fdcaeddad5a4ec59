# The binaries of the Python wheel, which runs where no LLVM is installed: one
# shared library with what the compiler needs of LLVM's and MLIR's static archives
# inside, and tools that call into it. The target MoEWheel builds them, and
# `./dev wheel` the wheel.

set(folder ${PROJECT_BINARY_DIR}/wheel)
file(GLOB archives ${LLVM_LIBRARY_DIR}/libMLIR*.a ${LLVM_LIBRARY_DIR}/libLLVM*.a)
list(LENGTH archives count)
find_program(MOE_LLD ld.lld HINTS ${LLVM_TOOLS_BINARY_DIR} NO_DEFAULT_PATH)
find_library(MOE_ZSTD libzstd.a)
if(count LESS 300 OR NOT MOE_LLD OR NOT MOE_ZSTD OR NOT TARGET moe_python_native)
  message(STATUS "No target MoEWheel: it needs LLVM's archives, lld, zstd's and Python's headers")
  return()
endif()

# MLIR names all targets that LLVM was built with. The wheel has those that
# artifacts are compiled for.
set(text "// Targets of LLVM that the wheel leaves out.\n")
foreach(target ${LLVM_TARGETS_TO_BUILD})
  if(NOT target MATCHES "^(X86|NVPTX)$")
    foreach(part Target TargetInfo TargetMC AsmPrinter AsmParser Disassembler)
      string(APPEND text
        "extern \"C\" void LLVMInitialize${target}${part}() {}\n")
    endforeach()
  endif()
endforeach()
file(CONFIGURE OUTPUT ${folder}/Targets.cpp CONTENT "${text}" @ONLY)

add_library(MoEWheelCompiler SHARED EXCLUDE_FROM_ALL
  ${PROJECT_SOURCE_DIR}/lib/CAPI/JIT.cpp
  ${PROJECT_SOURCE_DIR}/lib/CAPI/PerfMap.cpp
  ${PROJECT_SOURCE_DIR}/lib/CAPI/Tools.cpp
  ${PROJECT_SOURCE_DIR}/tools/moe-wheel/arc4random.cpp
  ${folder}/Targets.cpp)
moe_compiler_options(MoEWheelCompiler)
moe_precompile_headers(MoEWheelCompiler)
get_property(libraries GLOBAL PROPERTY MOE_LIBRARIES)
set(own ${libraries} moe_io)
add_dependencies(MoEWheelCompiler MoEIncGen ${own})
list(TRANSFORM own REPLACE "(.+)" "$<TARGET_FILE:\\1>")
set(exports ${PROJECT_SOURCE_DIR}/lib/CAPI/MoECompiler.map)
# What is not reached from the exported functions is left out.
target_link_options(MoEWheelCompiler PRIVATE
  -fuse-ld=lld -B${LLVM_TOOLS_BINARY_DIR} -static-libstdc++
  "LINKER:--version-script=${exports}" LINKER:--gc-sections LINKER:--no-undefined
  $<$<CONFIG:Release>:LINKER:-s>)
target_link_libraries(MoEWheelCompiler PRIVATE
  -Wl,--start-group ${own} ${archives} -Wl,--end-group
  ZLIB::ZLIB ${MOE_ZSTD} ${CMAKE_DL_LIBS} pthread m)
set_target_properties(MoEWheelCompiler PROPERTIES OUTPUT_NAME MoECompiler
  LIBRARY_OUTPUT_DIRECTORY ${folder}/lib LINK_DEPENDS "${exports}")

add_custom_target(MoEWheel
  DEPENDS moe_rt moe_onnxruntime moe-run moe_python_native)
foreach(tool compile opt)
  add_executable(moe-wheel-${tool} EXCLUDE_FROM_ALL
    ${PROJECT_SOURCE_DIR}/tools/moe-wheel/main.c)
  target_compile_definitions(moe-wheel-${tool} PRIVATE
    MOE_TOOL=moe_${tool}_main)
  target_link_libraries(moe-wheel-${tool} PRIVATE MoEWheelCompiler)
  # Its own name would make `ninja moe-${tool}` build this one.
  set_target_properties(moe-wheel-${tool} PROPERTIES
    RUNTIME_OUTPUT_DIRECTORY ${folder}/bin
    BUILD_RPATH "" BUILD_WITH_INSTALL_RPATH ON INSTALL_RPATH "$ORIGIN/../lib")
  add_dependencies(MoEWheel moe-wheel-${tool})
  install(PROGRAMS $<TARGET_FILE:moe-wheel-${tool}> RENAME moe-${tool}
    DESTINATION moe/bin COMPONENT wheel EXCLUDE_FROM_ALL)
endforeach()

# `cmake --install build --component wheel`: the folder that pip makes a wheel of.
install(DIRECTORY ${PROJECT_SOURCE_DIR}/python/moe DESTINATION .
  COMPONENT wheel EXCLUDE_FROM_ALL PATTERN __pycache__ EXCLUDE)
install(FILES ${PROJECT_SOURCE_DIR}/python/pyproject.toml
  ${PROJECT_SOURCE_DIR}/python/setup.py ${PROJECT_SOURCE_DIR}/README.md
  ${PROJECT_SOURCE_DIR}/LICENSE
  DESTINATION . COMPONENT wheel EXCLUDE_FROM_ALL)
install(FILES ${folder}/lib/libMoECompiler.so DESTINATION moe/lib
  COMPONENT wheel EXCLUDE_FROM_ALL)
# A wheel has no links: the one name is that which moe-run looks for.
install(FILES $<TARGET_FILE:moe_rt> RENAME $<TARGET_SONAME_FILE_NAME:moe_rt>
  DESTINATION moe/lib COMPONENT wheel EXCLUDE_FROM_ALL)
install(FILES $<TARGET_FILE:moe_onnxruntime> DESTINATION moe/lib
  COMPONENT wheel EXCLUDE_FROM_ALL)
install(TARGETS moe-run RUNTIME DESTINATION moe/bin
  COMPONENT wheel EXCLUDE_FROM_ALL)
install(FILES $<TARGET_FILE:moe_python_native> DESTINATION moe
  COMPONENT wheel EXCLUDE_FROM_ALL)
# Of what is inside.
foreach(part llvm=libllvm22 zstd=libzstd-dev zlib=zlib1g-dev
    json=nlohmann-json3-dev xxhash=libxxhash-dev)
  string(REPLACE "=" ";" part ${part})
  list(GET part 0 name)
  list(GET part 1 debian)
  install(FILES /usr/share/doc/${debian}/copyright DESTINATION .
    RENAME LICENSE.${name} OPTIONAL COMPONENT wheel EXCLUDE_FROM_ALL)
endforeach()
