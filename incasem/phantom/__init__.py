"""A generated FIB-SEM cell with exact labels."""
