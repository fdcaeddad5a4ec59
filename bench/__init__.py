"""Benchmarks: this project and its peers in one run, against the roofline of the machine.

    ./dev bench cpu       MoE layers on the CPU
    ./dev bench model     a whole transformers model

    ./dev bench gpu       MoE layers on an NVIDIA GPU

``cpu`` and ``gpu`` start processes (``worker``) that measure all participants (``participants``) in
interleaved rounds on the same weights; on the CPU each has a process of its own. ``device``
verifies layers on a GPU and packs the bundle for a machine with one. ``common`` has shared code.
"""
