"""Statistics of pixels that presets and published checkpoints share."""

# Means and standard deviations of red, green and blue, 0 to 1, over the pictures of ImageNet.
IMAGENET = {"pixel_mean": (0.485, 0.456, 0.406), "pixel_std": (0.229, 0.224, 0.225)}
