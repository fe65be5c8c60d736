"""Search spaces and the search for a booster's settings, on Ray Tune."""
