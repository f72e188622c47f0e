"""Loops: training, evaluation, and the protocols that turn view logits into figures."""
