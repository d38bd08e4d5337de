"""Defenses: training a classifier against universal perturbations."""
