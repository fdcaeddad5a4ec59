"""MoE layers, and a whole model, on the CPU beside other projects."""
