"""Records as the token ids that transformers read."""
