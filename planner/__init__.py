"""DECIDE: the memory model, the speed model and the search; pure, no I/O."""
