"""Trials: minutes of load with faults in it, run by hand with `python -m tests.trials.NAME`; each says how it ended by
its exit status. A small quick version of each is in the suite.
"""
