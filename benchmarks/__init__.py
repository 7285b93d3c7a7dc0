"""What the broker costs, each figure beside its reference in the same run. `python -m benchmarks`; see README.md."""
