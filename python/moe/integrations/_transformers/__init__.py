"""What the integration of transformers does beside the experts of one module."""
