"""Traces modules of PyTorch with ``torch.export``, for any number of tokens."""
