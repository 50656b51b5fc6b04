"""Sources of images and captions, and their way into batches."""
