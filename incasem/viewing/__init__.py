"""Opening volumes in viewers."""
