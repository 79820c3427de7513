"""One question a file; run one with `python -m experiments.NAME`, see README.md here for the answers."""
