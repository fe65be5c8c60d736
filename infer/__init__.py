"""Models and texts in, predictions out: scoring with language models, and blending."""
