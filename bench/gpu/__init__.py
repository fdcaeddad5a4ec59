"""Layers on an NVIDIA GPU: checks, and times beside other projects.

    ./dev pack gpu [DIRECTORY]    compile everything into a bundle: artifacts, runtime, Python
    ./dev check gpu               results against float64, on a machine with a GPU
    ./dev bench gpu               times beside peers, on a machine with a GPU

A machine with a GPU needs no compiler: it runs a bundle (``device.bundle``), with Python, numpy
and PyTorch. Separate processes do the work (``device.supervise``), as they may hang or crash with
the context of the device. Everything except peers uses the driver directly, so that it also runs on
the double of the driver.
"""
