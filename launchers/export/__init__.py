"""Write down how to run a plan elsewhere: one module per family of targets, one function per format."""
