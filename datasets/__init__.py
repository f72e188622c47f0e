"""From list files to batches of uint8 clips.

A line of a list (``lists``) names a video, a reader (``decode``, ``pack``) gives its frames, ``clips`` makes samples
and batches of them, ``features`` stands in for videos whose frames were encoded once, and ``build`` puts these together
as the configuration says. Imports go one way:

    lists, decode < pack < clips < features < build < prepare, check

``shapes``, which draws a data set of its own, needs none of them. tests/test_imports.py holds this.
"""
