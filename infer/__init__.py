"""Predict with models, and blend the predictions."""
