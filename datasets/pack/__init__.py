"""Videos packed for fast reading: python -m datasets.pack"""
