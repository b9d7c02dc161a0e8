"""Pieces without scientific opinion: likelihoods, divergences, networks, and fused products."""
