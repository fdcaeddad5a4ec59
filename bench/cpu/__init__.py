"""MoE layers, and a whole model, on the CPU, compared with peers."""
