"""Records in, features out."""
