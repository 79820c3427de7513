"""The rungs of the ladder as pure functions, each linear in the image and in its kernel."""
