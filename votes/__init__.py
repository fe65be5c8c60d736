"""The vocabulary of the domain: outcomes, records, folds, swap, predictions."""
