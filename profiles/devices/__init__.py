"""Device facts as data."""
