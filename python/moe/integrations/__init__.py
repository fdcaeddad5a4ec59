"""Compiled layers inside other frameworks."""
