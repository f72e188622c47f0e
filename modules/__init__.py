"""Video models: systems and what they are made of, formats of checkpoints, and the registries (``build.py``)."""
