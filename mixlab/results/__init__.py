"""Results: what the papers print, what was measured here, and how to run what is missing."""
