"""What the layers compute, by others: transformers, papers, formulas in any precision, numpy."""
