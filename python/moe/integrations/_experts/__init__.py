"""Finds experts in graphs and modules, and describes what one expert computes."""
