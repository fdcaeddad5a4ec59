"""Writes graphs of ``torch.export`` as functions of linalg, tensor and moe operations."""
