"""The parts of single experiments: networks, tasks, measurements and figures."""
