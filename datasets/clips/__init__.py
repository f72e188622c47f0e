"""Which frames of a video, how they are cropped and augmented, and the batches of them."""
