"""Several lists to train on in turn, whose videos are matched with texts."""
