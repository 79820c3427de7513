"""Receptive fields: their extent, their pixels, and the effect of each pixel on an output."""
