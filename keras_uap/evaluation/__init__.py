"""Evaluation: how fragile a classifier is."""
