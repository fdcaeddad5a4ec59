"""Benchmarks: this project beside its peers, in one run, against the machine's limits.

    ./dev bench cpu       MoE layers on the CPU
    ./dev bench model     a whole transformers model

``cpu`` starts one process (``worker``) for each shape, type and thread count. In it all
participants (``participants``) hold the same weights and take turns, round by round.
"""
