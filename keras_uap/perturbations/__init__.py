"""Perturbations: the ball that holds one, and how it is applied."""
