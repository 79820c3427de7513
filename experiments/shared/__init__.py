"""The code that all experiments share: command line, compilation cache, settings and timing."""
