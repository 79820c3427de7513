"""What of an image reaches an output: how far, which pixels, and how much each does."""
