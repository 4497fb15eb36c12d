"""JSON schemas, shipped."""
