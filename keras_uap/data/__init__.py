"""Images: reading, augmenting, splitting and batching them."""
