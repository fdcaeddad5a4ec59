"""Benchmarks: this project beside its peers, in one run, against the machine's limits.

    ./dev bench cpu       MoE layers on the CPU
    ./dev bench model     a whole transformers model

    ./dev bench gpu       MoE layers on an NVIDIA GPU

``cpu`` and ``gpu`` start processes (``worker``) in which all participants (``participants``) hold
the same weights and take turns, round by round. ``device`` checks what layers compute on a GPU,
and packs what a machine with one needs. The rest is in ``common``.
"""
