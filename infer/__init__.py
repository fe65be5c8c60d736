"""Models and texts in, predictions out."""
