"""ACT: run an engine, measure it, write down how to run it."""
