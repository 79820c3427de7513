"""What all experiments share: the command line, the compilation cache, settings and timing."""
