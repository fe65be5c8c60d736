"""Blending and calibrating the predictions of several models."""
