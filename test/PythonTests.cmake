# The suites of test/python. Each is a process of its own, so that all cores work;
# the costs are seconds of one core of two, measured once.

# What layers compute on the CPU.
moe_add_python_tests(layers layers_cpu cpu_levels long_inputs loops random_experts
  COST 200 LABELS slow)
moe_add_python_tests(operations
  grouped_ops ops_sweep prepared_weights reference_gates reference_layers
  routed_ops
  COST 130 LABELS slow)
moe_add_python_tests(plan plan COST 130 LABELS slow)

# The doors: checkpoints, the package, transformers.
moe_add_python_tests(import import_hf checkpoints_cpu COST 140 LABELS slow)
moe_add_python_tests(package
  comparisons compile demo layer_update objects package threads weight_files
  COST 60)
moe_add_python_tests(transformers
  transformers_experts transformers_integration transformers_interface
  transformers_weights whole_model
  COST 90 LABELS slow)
moe_add_python_tests(bench bench bench_gpu COST 100 LABELS slow)

# On the double of the driver, and NVIDIA's assembler.
moe_add_python_tests(device-layers layers_gpu COST 280 LABELS slow device)
moe_add_python_tests(device-operations
  gpu_views grouped_ops_gpu routing_gpu scaled_products
  COST 250 LABELS slow device)
moe_add_python_tests(device-kernels gpu_kernels schedules_gpu
  COST 260 LABELS slow device)
