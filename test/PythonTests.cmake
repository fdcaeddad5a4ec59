# The suites of test/python. Each is a process of its own, so that all cores work;
# the costs are seconds of one core of two, measured once.

# What layers and operations compute on the CPU, and the reference of the package.
moe_add_python_tests(layers
  cpu/layers_cpu cpu/cpu_levels cpu/long_inputs cpu/loops cpu/random_experts
  cpu/routes
  COST 200 LABELS slow)
moe_add_python_tests(operations
  cpu/auxiliary_loss cpu/dequantize cpu/gate_gradient cpu/grouped_contract
  cpu/grouped_ops cpu/ops_sweep cpu/prepared_weights
  cpu/quantize cpu/quantized_matmul cpu/raised_products cpu/routed_ops
  reference/reference_gates reference/reference_layers
  COST 130 LABELS slow)
moe_add_python_tests(plan cpu/plan COST 130 LABELS slow)

# The doors: checkpoints, the package, transformers.
moe_add_python_tests(import
  import/checkpoints_cpu import/gguf import/import_hf
  import/quantized_checkpoints
  COST 140 LABELS slow)
moe_add_python_tests(families import/import_families COST 240 LABELS slow)
moe_add_python_tests(from-torch
  from_torch/from_torch from_torch/modules
  COST 250 LABELS slow)
moe_add_python_tests(torch-compile
  from_torch/batched from_torch/blocks from_torch/by_value from_torch/compiled_modules
  from_torch/dynamo
  from_torch/loops from_torch/maps from_torch/near_programs from_torch/reads from_torch/routing
  from_torch/split_blocks from_torch/token_counts from_torch/training
  COST 400 LABELS slow)
moe_add_python_tests(package
  import/gguf_files import/weight_files
  package/compile package/demo package/dev package/layer_update
  package/caller package/ir package/monitor package/monitor_sinks
  package/objects package/package package/profile package/profile_page
  package/threads reference/comparisons
  COST 60)
moe_add_python_tests(transformers
  transformers/accumulation transformers/monitor_models transformers/transformers_experts
  transformers/transformers_integration
  transformers/transformers_interface transformers/transformers_routes
  transformers/transformers_training transformers/transformers_weights
  transformers/whole_model
  COST 90 LABELS slow)
# Skipped where there is no JAX, MPI, ONNX Runtime, torch-mlir, Triton or vLLM, as in .venv:
# `./dev check jax`, `mpi`, `onnx`, `torch-mlir`, `triton` and `vllm` run them.
moe_add_python_tests(engines
  engines/jax engines/jax_batches engines/jax_calls engines/jax_choices engines/jax_einsums engines/jax_fingerprints
  engines/jax_forms engines/jax_groups
  engines/jax_lowering engines/jax_routers engines/jax_training engines/jax_unrolled engines/mpi
  engines/onnx engines/onnx_exported_loops engines/onnx_graphs engines/onnx_loops engines/onnx_quantized engines/onnx_sessions
  engines/torch_mlir
  engines/triton engines/vllm
  COST 5)
moe_add_python_tests(parallel
  parallel/parallel_ops parallel/parallel_plan parallel/placement
  parallel/process_group parallel/rank_checkpoints parallel/rank_formats
  parallel/rank_options parallel/rank_programs parallel/ranks
  parallel/replicated_ranks
  parallel/torch_ranks parallel/training_ranks parallel/transformers_ranks
  COST 90)
moe_add_python_tests(wheel package/wheel COST 70 LABELS slow)
moe_add_python_tests(bench
  bench/bench bench/bench_formats bench/bench_ggml bench/bench_gpu
  bench/bench_process
  COST 100 LABELS slow)

# On the double of the driver, and NVIDIA's assembler.
moe_add_python_tests(device-layers device/layers_gpu device/quantized_gpu
  COST 280 LABELS slow device)
# Among these are kernels that are refused, after which a process has no device.
moe_add_python_tests(device-nvcc device/nvcc_gpu COST 90 LABELS slow device)
moe_add_python_tests(device-changes device/multicast_changes_gpu
  COST 60 LABELS slow device)
moe_add_python_tests(device-operations
  device/gpu_views device/grouped_ops_gpu device/kernel_model device/multicast_gpu
  device/routes_gpu device/routing_gpu device/scaled_products device/torch_gpu device/training_gpu
  COST 330 LABELS slow device)
moe_add_python_tests(device-kernels
  device/epilogues_gpu device/gpu_kernels device/schedules_gpu
  COST 260 LABELS slow device)
