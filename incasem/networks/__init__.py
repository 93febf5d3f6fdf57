"""Networks: the U-Net, losses, checkpoints and the preparation for inference."""
