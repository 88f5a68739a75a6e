"""Honest error bounds for MACE energies."""
