"""From the official material of a data set to its lists: python -m datasets.prepare"""
