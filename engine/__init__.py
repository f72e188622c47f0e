"""Loops: training, the one pass over videos, and the protocols that turn its tables into figures."""
