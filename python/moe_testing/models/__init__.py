"""Modules of transformers, tiny."""
