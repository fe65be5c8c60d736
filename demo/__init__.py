"""What the demo makes itself: synthetic preference pairs with a known best score, and tiny LLM checkpoints."""
