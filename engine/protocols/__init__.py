"""Protocols: which tables a pass over a list collects, and the figures that follow."""
