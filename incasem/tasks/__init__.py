"""What is learnt: target, loss, decoding and scores of each task."""
