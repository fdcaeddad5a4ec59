#!/bin/sh
# Fails, as a compiler with a bug would, while the file has a gate.
! grep -q moe.gate "$1"
