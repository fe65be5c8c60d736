"""Rate models by votes and predictions, and choose the pairs to vote on next."""
