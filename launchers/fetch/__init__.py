"""Fetching a model file into the hub cache that other tools share: whole and verified, or not at all."""
