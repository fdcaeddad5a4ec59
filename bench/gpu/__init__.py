"""Layers on an NVIDIA GPU: their numbers, and their times beside other projects.

    ./dev pack gpu [DIRECTORY]    compile everything into a bundle: artifacts, runtime, Python
    ./dev check gpu               numbers against float64, on a machine with a GPU
    ./dev bench gpu               times beside peers, on a machine with a GPU

A machine with a GPU needs no compiler: it runs a bundle (``device.bundle``), with Python, numpy
and PyTorch. Work is done in processes of their own (``device.supervise``), which may hang or die
with the context of the device. Apart from peers, everything talks to the driver itself, so that it
runs on the double of the driver, too.
"""
