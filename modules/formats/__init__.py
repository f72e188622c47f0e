"""Formats: the names of published checkpoints and ours, and the settings that their shapes imply."""
