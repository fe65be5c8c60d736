"""Train models on features or texts, by folds."""
