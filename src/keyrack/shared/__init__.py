"""What `http` and `server` both use, and neither owns."""
