"""Scores of whole volumes, and the pages that show them."""
