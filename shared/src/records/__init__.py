"""What runs leave behind, and how it is read again: checkpoints, run folders, metrics."""
