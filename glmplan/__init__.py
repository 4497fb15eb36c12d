"""Plan, launch and measure GLM-4.7-Flash on your own hardware."""

__version__ = "0.1.0"
