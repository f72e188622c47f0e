"""Files of tensors: where they are, how they are read, what their values may be."""
