"""OBSERVE: facts about this machine, this model file, this engine."""
