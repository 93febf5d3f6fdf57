"""Global post-processing of predictions."""
