"""Scores of probabilities against votes, their intervals, baselines."""
