"""Reproducible measurements; ``python -m benchmarks.all`` writes docs/benchmarks.md."""
