// Compiled only so that a target owns the precompiled header of all others.
