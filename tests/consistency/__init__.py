"""What concurrent clients of several workers may see, also while workers are killed."""
