"""Configuration, processes, checkpoints, optimisation, metrics, logging; imports nothing of ours."""
