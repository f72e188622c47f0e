"""The ground: configuration, files of tensors, processes, workers, precision, logging; imports nothing of ours."""
