"""The vocabulary that every other package shares; it imports nothing else of ours."""
