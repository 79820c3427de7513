"""The rungs of the ladder as pure functions of arrays, each linear in the image and in its kernel."""
