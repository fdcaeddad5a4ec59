"""Benchmarks: this project and its peers in one run, against the roofline of the machine.

    ./dev bench cpu       MoE layers on the CPU
    ./dev bench model     a whole transformers model

    ./dev bench gpu       MoE layers on an NVIDIA GPU

``cpu`` and ``gpu`` start processes (``worker``) in which all participants (``participants``) have
the same weights and are measured in interleaved rounds. ``device`` verifies layers on a GPU and
packs the bundle for a machine with one. ``common`` has shared code.
"""
