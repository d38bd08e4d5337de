"""Reporting: what results share, and their HTML pages."""
