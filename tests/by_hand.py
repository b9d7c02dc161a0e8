"""SCVI in NumPy and scipy, from the weights and the model's equations: a stranger to the code under test."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import expit, log_softmax
from scipy.stats import nbinom, poisson

BATCH_NORM_EPS = 1e-3


class ByHand:
    """The networks of a trained SCVI; design columns are [covariates, one-hot batch]."""

    def __init__(self, model: Any) -> None:
        self.w = {name: value.double().numpy() for name, value in model.module.state_dict().items()}
        self.config, self.cells = model.config, model.cells
        self.x = np.zeros((len(self.cells), self.cells.n_genes))
        for n in range(len(self.cells)):
            entries = slice(self.cells.counts.indptr[n], self.cells.counts.indptr[n + 1])
            self.x[n, self.cells.counts.indices[entries]] = self.cells.counts.values[entries]
        one_hot = np.eye(self.cells.schema.n_batches)[self.cells.batch]
        self.design = np.hstack([self.cells.covariates, one_hot])

    def linear(self, x: np.ndarray, name: str) -> np.ndarray:
        return x @ self.w[f"{name}.weight"].T + self.w[f"{name}.bias"]

    def norm_relu(self, x: np.ndarray, name: str) -> np.ndarray:
        scaled = (x - self.w[f"{name}.running_mean"]) / np.sqrt(self.w[f"{name}.running_var"] + BATCH_NORM_EPS)
        return np.maximum(scaled * self.w[f"{name}.weight"] + self.w[f"{name}.bias"], 0)

    def encoder(self, name: str, n_layers: int) -> np.ndarray:
        design = self.design if self.config.encode_covariates else self.design[:, :0]
        first = f"{name}.first"
        hidden = np.log1p(self.x) @ self.w[f"{first}.gene_weight"] + self.w[f"{first}.bias"]
        hidden = self.norm_relu(hidden + design @ self.w[f"{first}.covariate_weight"].T, f"{first}.norm")
        for i in range(n_layers - 1):
            layer = f"{name}.rest.layers.{i}"
            hidden = self.norm_relu(self.linear(np.hstack([hidden, design]), f"{layer}.linear"), f"{layer}.norm")
        return hidden

    def posterior(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of q(z | x)."""
        hidden = self.encoder("encoder", self.config.n_layers)
        return self.linear(hidden, "z_mean"), np.exp(self.linear(hidden, "z_variance")) + 1e-4

    def library_posterior(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of q(log l | x), each (n,)."""
        hidden = self.encoder("library_encoder", 1)
        mean, variance = self.linear(hidden, "library_mean"), np.exp(self.linear(hidden, "library_variance")) + 1e-4
        return mean[:, 0], variance[:, 0]

    def hidden(self, z: np.ndarray, design: np.ndarray) -> np.ndarray:
        for i in range(self.config.n_layers):
            layer = f"decoder.layers.{i}"
            z = self.norm_relu(self.linear(np.hstack([z, design]), f"{layer}.linear"), f"{layer}.norm")
        return z

    def log_rho(self, z: np.ndarray, design: np.ndarray) -> np.ndarray:
        return log_softmax(self.linear(self.hidden(z, design), "rho"), axis=1)

    def log_likelihood(self, n: int, z: np.ndarray, library: np.ndarray | float) -> np.ndarray:
        """log p(x_n | z, l) at points z (P, D) with library (P,) or one number, (P,)."""
        design = np.repeat(self.design[n : n + 1], len(z), axis=0)
        mean = np.exp(self.log_rho(z, design)) * np.reshape(library, (-1, 1))
        if self.config.gene_likelihood == "poisson":
            return poisson.logpmf(self.x[n], mean).sum(1)
        theta = np.exp(self.w["log_theta"][0])
        log_p = nbinom.logpmf(self.x[n], theta, theta / (theta + mean))
        if self.config.gene_likelihood == "zinb":
            pi = expit(self.linear(self.hidden(z, design), "dropout_logit"))
            log_p = np.where(self.x[n] == 0, np.log(pi + (1 - pi) * np.exp(log_p)), np.log1p(-pi) + log_p)
        return log_p.sum(1)
