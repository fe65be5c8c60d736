"""N-grams: tokens, counts, vocabularies."""
