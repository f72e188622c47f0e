"""What is wrong with the videos of a list: python -m datasets.check"""
