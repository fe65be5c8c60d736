"""Encoders and language models, fine-tuned by folds."""
