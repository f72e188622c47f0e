"""The built-in synthetic video set: python -m datasets.shapes"""
