"""Systems: one file for each paper, over the contract in ``base.py``."""
