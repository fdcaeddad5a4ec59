# What lit runs, with which tools and on which condition.
#
# Tools of the build tree (moe-opt, moe-compile, moe-run, ...) and of LLVM
# (FileCheck, not, mlir-opt, ...) are in the PATH of every test.

import os
import subprocess

import lit.formats
import lit.util

config.name = "MoE"
config.test_format = lit.formats.ShTest(execute_external=False)
config.suffixes = [".mlir", ".test"]
config.excludes = ["Inputs", "data", "python", "unit"]
config.test_source_root = os.path.dirname(__file__)
config.test_exec_root = os.path.join(config.moe_build_dir, "test")

build_bin = os.path.join(config.moe_build_dir, "bin")
build_lib = os.path.join(config.moe_build_dir, "lib")
config.environment["PATH"] = os.pathsep.join(
    [build_bin, config.llvm_tools_dir, os.environ.get("PATH", "")])
config.environment["PYTHONPATH"] = os.path.join(config.moe_source_dir, "python")
config.environment["MOE_BUILD_DIR"] = config.moe_build_dir
config.environment["MOE_CACHE_DIR"] = os.path.join(config.moe_build_dir, "cache")
# FileCheck's own way to make a failure readable.
config.environment["FILECHECK_OPTS"] = os.environ.get(
    "FILECHECK_OPTS", "--dump-input=fail")
for variable in ("CUDA_HOME", "CUDA_VISIBLE_DEVICES", "HOME", "ASAN_OPTIONS",
                 "UBSAN_OPTIONS", "LD_LIBRARY_PATH"):
    if variable in os.environ:
        config.environment[variable] = os.environ[variable]

for key, value in {
        "%python": config.python,
        "%cmake": config.cmake,
        "%build": config.moe_build_dir,
        "%source": config.moe_source_dir,
        "%moe_lib": build_lib,
        "%moe_plugin": os.path.join(build_lib, "MoEPlugin" + config.module_suffix),
        "%shlibext": config.shared_library_suffix,
        "%version": config.moe_version,
        "%generator": config.cmake_generator,
        "%cc": config.c_compiler,
        "%cxx": config.cxx_compiler,
        "%mlir_dir": config.mlir_dir,
}.items():
    config.substitutions.append((key + r"\b", value.replace("\\", r"\\")))

# Features, for REQUIRES and UNSUPPORTED.
#
#   host-x86_64, host-aarch64   the processor that runs the tests
#   cpu-FLAG                    what it can do: cpu-avx2, cpu-avx512f,
#                               cpu-avx512_bf16, cpu-amx_bf16, cpu-bf16, ...
#   target-NAME                 what LLVM can compile for: target-nvptx, ...
#   sanitizer                   the build has one
#   python-MODULE               numpy, torch, ...
processor = {"amd64": "x86_64", "arm64": "aarch64"}.get(
    config.target_processor.lower(), config.target_processor.lower())
config.available_features.add(f"host-{processor}")

if os.path.exists("/proc/cpuinfo"):
    with open("/proc/cpuinfo") as cpuinfo:
        for line in cpuinfo:
            if line.startswith(("flags", "Features")):
                config.available_features.update(
                    f"cpu-{flag}" for flag in line.split(":", 1)[1].split())
                break

for target in config.llvm_targets.split(";"):
    config.available_features.add(f"target-{target.lower()}")

if "-fsanitize" in config.cxx_flags:
    config.available_features.add("sanitizer")


def has_module(name):
    code = f"import importlib.util as u, sys; sys.exit(u.find_spec('{name}') is None)"
    return subprocess.run([config.python, "-c", code]).returncode == 0


for module in ("numpy", "ml_dtypes", "torch", "transformers"):
    if has_module(module):
        config.available_features.add(f"python-{module}")
