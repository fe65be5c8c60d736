"""Records in, features out: reading and validating input, hand-made features, n-grams, word vectors, embeddings."""
