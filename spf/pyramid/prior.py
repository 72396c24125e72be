"""What is known before any learning: the velocity of a Gaussian world with the measured couplings of a stage.

In that world the optimal velocity is linear: one small matrix over the steps of a window for each pattern and each class of
cells (`coupling`, `regression`). Detail is taken about what the expected block means imply. The network learns what differs:
forcing, other correlations, non-Gaussian shapes.

A window is worked on as rows of cells, in the order of their blocks, with steps beside each other: patterns are then plain matrix
products, blocks are means over one axis, classes are one batched product, and a few windows at a time stay in a processor's cache.
"""

import torch
from torch import Tensor, nn

from spf.pyramid.coupling import SMALL, Coupling, Part, around
from spf.pyramid.path import noise_fall
from spf.pyramid.regression import Regression, regress
from spf.pyramid.spec import Stage

AT_ONCE = 2**20
"""Numbers of a state that a processor works on at a time: what its caches hold."""


class Prior(nn.Module):
    """Expected path target given the state, in the Gaussian world of one stage.

    Args:
        stage: The stage.
        coupling: Measured.
    """

    def __init__(self, stage: Stage, coupling: Coupling) -> None:
        super().__init__()
        self.stage = stage
        self.detail: Cells | None = None
        self.stencil: Tensor
        self.near: Tensor
        self.companions: Tensor
        with coupling.mean.axes.device:  # where it was measured, also while a network is made without memory
            self._lay_out(coupling)

    def _lay_out(self, coupling: Coupling) -> None:
        """Bring what was measured into the order of blocks."""
        stage, grid = self.stage, coupling.mean.axes.shape[2:]
        n_blocks = grid[0] * grid[1]
        self.mean = Cells(coupling.mean, torch.arange(n_blocks))
        if coupling.detail is None:
            return
        if coupling.surroundings is None or coupling.companions is None or coupling.followed is None:
            raise ValueError(f"stage {stage.key}: a coupling with detail needs surroundings, companions and followed")
        fine = block_order(stage, *coupling.detail.axes.shape[2:])
        self.detail = Cells(coupling.detail, fine, coupling.followed)
        # a block's detail by the means of those around it less its own: weights of these blocks and of its own
        weights = coupling.surroundings.flatten(2)[..., fine].unflatten(2, (n_blocks, stage.cells)).permute(0, 2, 3, 1)
        stencil = torch.cat([weights, -weights.sum(-1, keepdim=True)], -1).flatten(0, 1)
        places = torch.arange(n_blocks, dtype=torch.float64).reshape(grid)
        near = torch.cat([around(places) + places, places[None]]).flatten(1).T.round().long()
        companions = coupling.companions.flatten(2)[..., fine].flatten(1).T
        for name, value in {"stencil": stencil, "near": near, "companions": companions}.items():
            self.register_buffer(name, value.contiguous(), persistent=False)

    @torch.no_grad()
    def forward(self, x: Tensor, t: Tensor, phase: Tensor | int = 0) -> Tensor:
        """State (batch, var, time, lat, lon) and flow time (batch,) -> target of the same shape, float32 or wider.

        Args:
            x: The state.
            t: Flow time.
            phase: Place of the first step in its parent's block; of the whole batch.
        """
        times, where = torch.unique(t.to(x), return_inverse=True)
        share = 1 / self.stage.cells
        mean = self.mean.regression(self.stage, times, x.shape[2], int(phase), share, share)
        detail = None
        if self.detail is not None:
            detail = self.detail.regression(self.stage, times, x.shape[2], int(phase), 1.0, 1 - share)
        out = torch.empty_like(x)
        size = max(1, AT_ONCE // x[0].numel()) if x.device.type == "cpu" else len(x)
        for i in range(len(times)):
            for rows in (where == i).nonzero()[:, 0].split(size):
                out[rows] = self._windows(x[rows], mean.at(i), detail.at(i) if detail else None, times[i])
        return out

    def _windows(self, x: Tensor, mean: Regression, detail: Regression | None, t: Tensor) -> Tensor:
        """Targets of windows of one flow time."""
        (_, rh, rw), (batch, n_var, steps, h, w) = self.stage.factors, x.shape
        split = x.reshape(batch, n_var, steps, h // rh, rh, w // rw, rw)
        y = split.permute(1, 3, 5, 4, 6, 0, 2).reshape(n_var, -1, rh * rw, batch * steps)
        blocks = y.mean(2)
        if self.detail is None or detail is None:
            out = self.mean.answer(blocks, mean)[0][:, :, None].expand_as(y)
        else:
            target, expected, amplitude = self.mean.answer(blocks, mean, also_clean=True)
            implied = self._implied(expected, amplitude).reshape(y.shape)
            fine = (y - blocks[:, :, None]).sub_(t * (1 - self.stage.sigma_end) * implied)
            answer = self.detail.answer(fine.flatten(1, 2), detail, unknown=mean.unknown)[0].reshape(y.shape)
            answer = answer.add_(implied.mul_((1 - self.stage.sigma_end) / noise_fall(self.stage)))
            out = answer.add_((target - answer.mean(2))[:, :, None])
        whole = out.reshape(n_var, h // rh, w // rw, rh, rw, batch, steps)
        return whole.permute(5, 0, 6, 1, 3, 2, 4).reshape(x.shape)

    def _implied(self, means: Tensor, amplitude: Tensor) -> Tensor:
        """Detail (var block cell, column) that block means (var, block, column) and amplitudes of their patterns imply."""
        around_each = means[:, self.near].flatten(0, 1)
        surrounded = torch.bmm(self.stencil.to(means), around_each).flatten(0, 1)
        companions = self.companions.to(means)
        return surrounded.addmm_(companions, amplitude[: companions.shape[1]])


class Cells(nn.Module):
    """One part of a stage's fields, its cells turned to their axes and put into rows by their classes.

    Classes are of nearly equal size; the shorter ones are filled up, so that one batched product serves all.

    Args:
        part: Measured.
        cells: Order in which its cells are given, of the flattened grid (cell,).
        followed: Variance (var, lat, lon) whose unknown share adds to the rest; default none.
    """

    def __init__(self, part: Part, cells: Tensor, followed: Tensor | None = None) -> None:
        super().__init__()
        axes = part.axes.flatten(2)[..., cells]
        patterns = torch.einsum("avc,nvc->nac", axes, part.patterns.flatten(2)[..., cells].to(axes)).flatten(1)
        spread = torch.zeros_like(axes[0]) if followed is None else followed.flatten(1)[:, cells].to(axes)
        order, inside, self.kinds = rows_by_class(part.persistence.flatten(1)[:, cells].long())
        back = torch.empty(axes[:, 0].numel(), dtype=torch.long)
        back[order[inside]] = inside.nonzero()[:, 0]
        buffers = {
            "axes": axes, "order": order, "back": back, "patterns": patterns[:, order] * inside,
            "rest": part.rest.flatten(1)[:, cells].flatten()[order],
            "spread": torch.einsum("avc,vc->ac", axes.square(), spread).flatten()[order],
            **{name: getattr(part, name) for name in ("together", "covariance", "slope", "correlation", "rest_slope")},
        }  # fmt: skip
        self.axes: Tensor
        self.order: Tensor
        self.back: Tensor
        self.patterns: Tensor
        self.rest: Tensor
        self.spread: Tensor
        self.together: Tensor
        self.covariance: Tensor
        self.slope: Tensor
        self.correlation: Tensor
        self.rest_slope: Tensor
        for name, value in buffers.items():
            self.register_buffer(name, value.contiguous(), persistent=False)

    def regression(self, stage: Stage, times: Tensor, steps: int, phase: int, noise: float, white: float) -> Regression:
        """Its matrices, see `regress`, those of the rest for each of ``kinds``."""
        series, rest = (self.together, self.covariance, self.slope), (self.correlation, self.rest_slope)
        return regress(stage, series, rest, times, steps, phase, noise, white).of(self.kinds)

    def answer(
        self, y: Tensor, m: Regression, also_clean: bool = False, unknown: Tensor | float = 0.0
    ) -> tuple[Tensor, ...]:
        """Expected target like y; if asked, also the expected clean fields and the amplitudes of their patterns.

        Args:
            y: State (var, cell, column), a column for every window and step.
            m: Matrices of its flow time.
            also_clean: Whether they are asked for.
            unknown: Share of ``followed`` that is not known.
        """
        steps, patterns = m.vectors.shape[-1], self.patterns.to(y)
        along = torch.stack([_combined(a, y) for a in self.axes.to(y)[..., None]])
        z = along.flatten(0, 1).index_select(0, self.order)
        amplitude = patterns @ z
        each = amplitude.unflatten(1, (-1, steps))
        z = z.addmm_(patterns.T, amplitude, alpha=-1)
        spectral, r = self._spectral(z, m, unknown)
        scaled = (spectral * r).flatten(1, 2)
        target = torch.bmm(scaled, m.turned).baddbmm_(spectral.flatten(1, 2), m.lost, alpha=-1).reshape(z.shape)
        out = self._back(self._with_patterns(target, _through(each, m.joint_target, m.target)))
        if not also_clean:
            return (out,)
        clean, own = torch.bmm(scaled, m.cleared).reshape(z.shape), _through(each, m.joint_clean, m.clean)
        return out, self._back(self._with_patterns(clean, own)), own

    def _spectral(self, z: Tensor, m: Regression, unknown: Tensor | float) -> tuple[Tensor, Tensor]:
        """With variance r: the rest's (r A + noise)^-1 along the eigenvectors of A, (class, row, window, step), and r."""
        n, steps = len(self.kinds), m.vectors.shape[-1]
        r = (self.rest.to(z) + unknown * self.spread.to(z)).reshape(n, -1, 1, 1)
        seen = (r * m.values[:, None, None]).add_(m.white + SMALL)
        return torch.bmm(z.reshape(n, -1, steps), m.vectors).unflatten(1, (r.shape[1], -1)).div_(seen), r

    def _with_patterns(self, z: Tensor, amplitude: Tensor) -> Tensor:
        """Rows with these amplitudes (pattern, column) of the patterns instead of what is in them."""
        patterns = self.patterns.to(z)
        return z.addmm_(patterns.T, amplitude - patterns @ z)

    def _back(self, z: Tensor) -> Tensor:
        """Rows (row, column) as variables (var, cell, column)."""
        along = z.index_select(0, self.back).unflatten(0, (len(self.axes), -1))
        return torch.stack([_combined(v, along) for v in self.axes.to(z).transpose(0, 1)[..., None]])


def _through(each: Tensor, joint: Tensor, single: Tensor) -> Tensor:
    """Rows of amplitudes (pattern, window, step) times the matrices of the leading ones together and of each other one."""
    k = len(each) - len(single)
    together = (each[:k].transpose(0, 1).flatten(1) @ joint).unflatten(1, (k, each.shape[2])).transpose(0, 1)
    return torch.cat([together, torch.bmm(each[k:], single)]).flatten(1)


def _combined(weights: Tensor, parts: Tensor) -> Tensor:
    """Sum of parts (part, cell, column) times their weights (part, cell, 1)."""
    out = weights[0] * parts[0]
    for weight, part in zip(weights[1:], parts[1:], strict=True):
        out.addcmul_(weight, part)
    return out


def rows_by_class(kinds: Tensor) -> tuple[Tensor, Tensor, list[tuple[int, int]]]:
    """Rows for cells (axis, cell) of some classes, as many for each class of an axis that has cells.

    Returns:
        Flat place of each row's cell (row,), the first again where a class has no more; which rows are cells; and axis and class
        of each set of rows.
    """
    sets = [(a, k, (row == k).nonzero()[:, 0]) for a, row in enumerate(kinds) for k in row.unique().tolist()]
    longest = max(len(cells) for _, _, cells in sets)
    order = torch.zeros(len(sets), longest, dtype=torch.long)
    inside = torch.zeros(len(sets), longest, dtype=torch.bool)
    for i, (axis, _, cells) in enumerate(sets):
        order[i, : len(cells)] = axis * kinds.shape[1] + cells
        inside[i, : len(cells)] = True
    return order.flatten(), inside.flatten(), [(axis, kind) for axis, kind, _ in sets]


def block_order(stage: Stage, h: int, w: int) -> Tensor:
    """Flat places of all cells (cell,) of a grid, block by block."""
    _, rh, rw = stage.factors
    return torch.arange(h * w).reshape(h // rh, rh, w // rw, rw).permute(0, 2, 1, 3).flatten()
