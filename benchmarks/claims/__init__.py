"""Claims of the README, each with the command that tests it: `python -m benchmarks.claims.<name>`."""
