"""Models on features, trained by folds."""
