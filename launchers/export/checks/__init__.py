"""Check an exported file offline, by the strongest means that is here, and say which that was."""
