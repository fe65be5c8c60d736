"""Features or texts in, models and out-of-fold predictions out."""
