"""Training: one loop, the networks, the recipes, many small networks at once, and what is measured of a network."""
