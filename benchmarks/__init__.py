"""Benchmarks: `python -m benchmarks.NAME`. Each checks correctness first, then measures side by side."""
