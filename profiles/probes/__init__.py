"""Probes: each reads one part of the machine through the Host."""
