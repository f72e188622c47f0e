"""Objectives: plain tensors in, a loss and its parts out."""
