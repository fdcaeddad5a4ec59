# moe_add_library(NAME SOURCES... DEPENDS TABLEGEN_TARGETS... LINK LIBRARIES...)
#
# A static library of the compiler. All of them link against the distribution's
# shared libMLIR and libLLVM: linking MLIR's static archives beside the shared
# library would bring two copies of every dialect into one process.
function(moe_add_library name)
  cmake_parse_arguments(ARG "" "" "DEPENDS;LINK" ${ARGN})
  add_library(${name} STATIC ${ARG_UNPARSED_ARGUMENTS})
  moe_compiler_options(${name})
  moe_precompile_headers(${name})
  target_link_libraries(${name} PUBLIC ${ARG_LINK} MLIR LLVM)
  add_dependencies(${name} MoEIncGen ${ARG_DEPENDS})
  set_property(GLOBAL APPEND PROPERTY MOE_LIBRARIES ${name})
endfunction()

# MLIR's headers take most of the time of compiling a file: they are parsed once.
# CMAKE_DISABLE_PRECOMPILE_HEADERS turns that off.
function(moe_precompile_headers target)
  if(NOT TARGET MoEPrecompiledHeaders)
    add_library(MoEPrecompiledHeaders OBJECT
      ${PROJECT_SOURCE_DIR}/cmake/MoEPrecompiledHeaders.cpp)
    moe_compiler_options(MoEPrecompiledHeaders)
    target_precompile_headers(MoEPrecompiledHeaders PRIVATE
      ${PROJECT_SOURCE_DIR}/cmake/MoEPrecompiledHeaders.h)
  endif()
  target_precompile_headers(${target} REUSE_FROM MoEPrecompiledHeaders)
endfunction()

# Include directories and the flags that libMLIR was built with. Visibility stays
# the default: MLIR compares traits and interfaces by the address of inline
# variables, which must be the same in every shared object.
function(moe_compiler_options target)
  target_include_directories(${target} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>
    $<BUILD_INTERFACE:${PROJECT_BINARY_DIR}/include>
    $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  target_include_directories(${target} SYSTEM PUBLIC
    ${MLIR_INCLUDE_DIRS} ${LLVM_INCLUDE_DIRS})
  target_compile_options(${target} PRIVATE
    -fno-exceptions -Wall -Wextra -Wno-unused-parameter -Wno-comment
    # Wrong about FailureOr; LLVM turns it off for GCC, too.
    $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
  # A precompiled header fits only files that are compiled alike: executables take
  # -fPIC (after CMake's -fPIE), too. Passes spend their time in libMLIR, which
  # Debian optimised, so -O1 is enough for ours.
  target_compile_options(${target} PRIVATE -fPIC $<$<CONFIG:Release>:-O1>)
  if(NOT LLVM_ENABLE_RTTI)
    target_compile_options(${target} PRIVATE -fno-rtti)
  endif()
endfunction()

# moe_add_tool(NAME SOURCES... LINK LIBRARIES...)
function(moe_add_tool name)
  cmake_parse_arguments(ARG "" "" "LINK" ${ARGN})
  add_executable(${name} ${ARG_UNPARSED_ARGUMENTS})
  moe_compiler_options(${name})
  moe_precompile_headers(${name})
  target_link_libraries(${name} PRIVATE ${ARG_LINK} MLIR LLVM)
  install(TARGETS ${name} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR}
    COMPONENT compiler)
endfunction()
