"""Prices of hosted tokens as data."""
