"""The classifier under attack: its logits, labels and features."""
