"""From list files to batches of uint8 clips."""
