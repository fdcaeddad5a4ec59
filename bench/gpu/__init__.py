"""Layers on an NVIDIA GPU: checks, and times compared with peers.

    ./dev pack gpu [DIRECTORY]    compile everything into a bundle: artifacts, runtime, Python
    ./dev check gpu               results against float64, on a machine with a GPU
    ./dev bench gpu               times compared with peers, on a machine with a GPU

A machine with a GPU needs no compiler: it runs a bundle (``device.bundle``), with Python, numpy
and PyTorch. Separate processes do the work (``device.supervise``), as they may hang, or crash with
the CUDA context. Everything except peers uses the driver API directly, so that it also runs on the
CUDA double.
"""
