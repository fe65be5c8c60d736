"""Benchmarks behind all figures in the documentation. Each command measures both sides in the same run."""
