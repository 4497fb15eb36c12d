"""Model facts as data."""
