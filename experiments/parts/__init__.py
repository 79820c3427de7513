"""Parts of experiments: the networks, tasks, measurements and figures that a single question needs."""
