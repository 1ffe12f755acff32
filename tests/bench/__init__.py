"""Measurements: what the program does against a floor or a peer that is measured in the same run. Nothing here asserts."""
