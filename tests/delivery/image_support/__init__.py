"""What the tests of the image share: a Docker engine of their own, and containers in it."""
