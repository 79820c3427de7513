"""Experiments, one question per file, run by `python -m experiments.NAME`.

README.md in this folder holds the answers.
"""
