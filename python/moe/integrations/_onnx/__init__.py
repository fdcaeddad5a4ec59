"""Experts of ONNX models: nodes, graphs and quantised weights."""
