"""Small things that all packages share."""
