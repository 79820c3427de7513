"""What a shift of the image does: to a function, to predictions, and to a network layer by layer."""
