"""Watching the experts of a model: load, balance, drops, router confidence, dead experts.

    with moe.monitor.watch(model, to="load.jsonl") as monitor:
        for batch in batches:
            train(batch)
            monitor.step()
    monitor.last.layers["model.layers.0.mlp.experts"].load      # rows of each expert

For training and inference. What a source cannot know, such as the confidence of a router inside
of a compiled layer, is None and absent in what sinks write.
"""

from ._monitor import Monitor, watch
from ._plot import plot
from ._records import LayerRecord, StepRecord, entropy, variation
from ._sinks import JSONLines, Prometheus, TensorBoard
from ._work import Work

__all__ = ["JSONLines", "LayerRecord", "Monitor", "Prometheus", "StepRecord", "TensorBoard",
           "Work", "entropy", "plot", "variation", "watch"]
