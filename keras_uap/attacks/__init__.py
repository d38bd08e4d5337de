"""Attacks: how a universal perturbation is found."""
