"""Classes: what videos are compared with."""
