"""Commands beside the main ones; run them as ``python -m tools.NAME``."""
