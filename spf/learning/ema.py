"""Exponential moving average of the weights: what is sampled from."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class MovingAverage:
    """Running average of a model's parameters; the decay warms up as min(longest, (1 + n) / (10 + n)) at update n.

    Args:
        model: Whose parameters are followed.
        longest: Largest decay.
    """

    def __init__(self, model: nn.Module, longest: float = 0.9999) -> None:
        self.longest, self.n_updates = longest, 0
        self.weights = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move towards the model's present weights."""
        decay = min(self.longest, (1 + self.n_updates) / (10 + self.n_updates))
        self.n_updates += 1
        for name, p in model.named_parameters():
            self.weights[name] = self.weights[name].to(p.device).lerp_(p.detach(), 1 - decay)

    def state_dict(self) -> dict[str, object]:
        """Weights and the number of updates, as plain data."""
        return {"n_updates": self.n_updates, "weights": self.weights}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Inverse of `state_dict`."""
        n_updates, weights = state["n_updates"], state["weights"]
        if not isinstance(n_updates, int) or not isinstance(weights, Mapping):
            raise ValueError("moving average: a snapshot without n_updates and weights; delete it and train anew")
        self.n_updates = n_updates
        self.weights = {str(name): w.clone() for name, w in weights.items() if isinstance(w, Tensor)}
