"""Pieces without scientific opinion: likelihoods, divergences, networks, and the fused products that make training fast."""
