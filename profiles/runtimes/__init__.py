"""KV cache layouts of runtimes by version as data."""
