# What `cmake --install` puts where, and the package that find_package(MoE)
# reads. Tools and libraries install themselves where they are defined; here are
# the headers, the Python package and the exports.
#
# There are three sets of targets: MoETargets (the runtime, which needs neither
# LLVM nor MLIR to be found), MoECompilerTargets (the dialect and the passes) and
# MoECTargets (the compiler with its C API).
#
# `cmake --install build --component C`, of which each works without the others
# but `python`, which needs `runtime` and, to compile, `compiler`:
#   runtime      libmoe_rt.so.0 and moe-run
#   compiler     the other tools, MoEPlugin.so, libMoECompiler.so and MLIR's C API
#   development  headers, static libraries, CMake's and pkg-config's files
#   python       the package moe

include(CMakePackageConfigHelpers)

set(MOE_INSTALL_CMAKEDIR ${CMAKE_INSTALL_LIBDIR}/cmake/MoE
    CACHE STRING "Where MoEConfig.cmake goes")
set(MOE_INSTALL_PYTHONDIR ${CMAKE_INSTALL_LIBDIR}/python
    CACHE STRING "Where the Python package moe goes")

# Installs a symbolic link, relative to itself so that the prefix can be moved.
function(moe_install_link target link component)
  get_filename_component(dir /${link} DIRECTORY)
  file(RELATIVE_PATH relative ${dir} /${target})
  install(CODE "
    set(link \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/${link}\")
    message(STATUS \"Installing: \${link}\")
    get_filename_component(dir \"\${link}\" DIRECTORY)
    file(MAKE_DIRECTORY \"\${dir}\")
    file(CREATE_LINK ${relative} \"\${link}\" SYMBOLIC)"
    COMPONENT ${component})
endfunction()

install(EXPORT MoETargets NAMESPACE MoE:: DESTINATION ${MOE_INSTALL_CMAKEDIR}
  COMPONENT development)

# The Python package, which finds the runtime and the compiler beside itself.
install(DIRECTORY ${PROJECT_SOURCE_DIR}/python/moe
  DESTINATION ${MOE_INSTALL_PYTHONDIR} COMPONENT python
  PATTERN __pycache__ EXCLUDE)
if(TARGET moe_python_native)
  install(FILES $<TARGET_FILE:moe_python_native>
    DESTINATION ${MOE_INSTALL_PYTHONDIR}/moe COMPONENT python)
endif()
moe_install_link(${CMAKE_INSTALL_LIBDIR}/libmoe_rt.so.${PROJECT_VERSION_MAJOR}
  ${MOE_INSTALL_PYTHONDIR}/moe/lib/libmoe_rt.so.${PROJECT_VERSION_MAJOR} python)

if(MOE_BUILD_COMPILER)
  get_property(libraries GLOBAL PROPERTY MOE_LIBRARIES)
  install(TARGETS ${libraries} EXPORT MoECompilerTargets
    ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT development)
  install(EXPORT MoECompilerTargets NAMESPACE MoE::
    DESTINATION ${MOE_INSTALL_CMAKEDIR} COMPONENT development)
  install(EXPORT MoECTargets NAMESPACE MoE::
    DESTINATION ${MOE_INSTALL_CMAKEDIR} COMPONENT compiler)
  foreach(root ${PROJECT_SOURCE_DIR} ${PROJECT_BINARY_DIR})
    install(DIRECTORY ${root}/include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
      COMPONENT development FILES_MATCHING
      PATTERN "*.h" PATTERN "*.td" PATTERN "*.def" PATTERN "*.inc"
      PATTERN CMakeFiles EXCLUDE)
  endforeach()
  foreach(tool moe-compile moe-opt moe-run)
    moe_install_link(${CMAKE_INSTALL_BINDIR}/${tool}
      ${MOE_INSTALL_PYTHONDIR}/moe/bin/${tool} python)
  endforeach()
endif()

configure_package_config_file(
  ${CMAKE_CURRENT_LIST_DIR}/MoEConfig.cmake.in
  ${PROJECT_BINARY_DIR}/cmake/MoEConfig.cmake
  INSTALL_DESTINATION ${MOE_INSTALL_CMAKEDIR}
  PATH_VARS CMAKE_INSTALL_INCLUDEDIR)
write_basic_package_version_file(
  ${PROJECT_BINARY_DIR}/cmake/MoEConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES
  ${PROJECT_BINARY_DIR}/cmake/MoEConfig.cmake
  ${PROJECT_BINARY_DIR}/cmake/MoEConfigVersion.cmake
  DESTINATION ${MOE_INSTALL_CMAKEDIR} COMPONENT development)
foreach(component runtime compiler development)
  install(FILES ${PROJECT_SOURCE_DIR}/LICENSE
    DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT ${component})
endforeach()
