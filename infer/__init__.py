"""Models and texts in, predictions out: LLM scoring, booster scoring, blending."""
