"""Heads: frame features of a clip in, frame features mixed over time out."""
