"""Scoring records with language models through vLLM."""
