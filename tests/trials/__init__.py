"""Trials: what takes minutes, run by hand. `python -m tests.trials.NAME --help`."""
