"""What the tests of other stores' commands share."""
