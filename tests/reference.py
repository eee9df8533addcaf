"""One MW-Net step worked out in NumPy, without automatic differentiation.

Every derivative is a complex-step derivative, Im f(x + ih) / h, exact to rounding for analytic f.
The per-example Jacobian of the losses is formed in full, so that the weight gradient is the plain
inner product G_i = -alpha <grad l_i, grad L>, not what the library does.
"""

from __future__ import annotations

import numpy as np

H = 1e-30


def _pack(parameters: dict) -> np.ndarray:
    return np.concatenate([np.ravel(v) for v in parameters.values()])


def _unpack(flat: np.ndarray, like: dict) -> dict:
    out, at = {}, 0
    for name, value in like.items():
        size = np.size(value)
        out[name] = flat[at : at + size].reshape(np.shape(value))
        at += size
    return out


def _relu(x):
    return x * (x.real > 0)


def losses(w: dict, x, y) -> np.ndarray:
    """Cross-entropies ``[B]`` of ``relu(BN(x @ w1 + b1)) @ w2 + b2``."""
    h = x @ w["w1"] + w["b1"]
    if "gamma" in w:
        centred = h - h.mean(axis=0)
        h = centred / np.sqrt((centred**2).mean(axis=0) + 1e-5) * w["gamma"] + w["beta"]
    z = _relu(h) @ w["w2"] + w["b2"]
    z = z - z.real.max(axis=1, keepdims=True)
    return np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(y)), y]


def values(theta: dict, loss) -> np.ndarray:
    h = _relu(loss[:, None] @ theta["v1"] + theta["c1"]) @ theta["v2"] + theta["c2"]
    return 1 / (1 + np.exp(-h[:, 0]))


def jacobian(f, parameters: dict) -> np.ndarray:
    """``d f / d parameters``, ``[len(f), P]``."""
    flat = _pack(parameters).astype(complex)
    columns = []
    for j in range(len(flat)):
        step = flat.copy()
        step[j] += 1j * H
        columns.append(np.atleast_1d(f(_unpack(step, parameters))).imag / H)
    return np.stack(columns, axis=1)


def step(w: dict, theta: dict, x, y, x_meta, y_meta, alpha, beta, normalised: bool) -> dict:
    """The values after each stage, under the names of the golden files."""

    def weights(t):
        v = values(t, loss)
        return v / v.sum() if normalised else v / len(v)

    loss = losses(w, x, y)
    of_losses = jacobian(lambda p: losses(p, x, y), w)
    flat = _pack(w)
    virtual = _unpack(flat - alpha * weights(theta) @ of_losses, w)
    at_virtual = jacobian(lambda p: losses(p, x_meta, y_meta).mean(), virtual)[0]
    gradient = -alpha * of_losses @ at_virtual
    meta_gradient = gradient @ jacobian(weights, theta)
    theta_after = _unpack(_pack(theta) - beta * meta_gradient, theta)
    w_after = _unpack(flat - alpha * weights(theta_after) @ of_losses, w)
    out = {"loss": loss, "weight": values(theta, loss)}
    out["meta_loss"] = losses(virtual, x_meta, y_meta).mean()
    out["weight_after"] = values(theta_after, loss)
    meta_gradient = _unpack(meta_gradient, theta)
    for name, part in (
        ("virtual", virtual),
        ("meta_grad", meta_gradient),
        ("theta_after", theta_after),
        ("w_after", w_after),
    ):
        out |= {f"{name}/{k}": v for k, v in part.items()}
    return {k: np.real(v) for k, v in out.items()}


def case(seed: int, bn: bool) -> dict[str, np.ndarray]:
    """A problem drawn at random, with its solution in both normalisations."""
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return rng.normal(size=shape) / np.sqrt(shape[0])

    arrays = {"x": rng.normal(size=(10, 5)), "y": rng.integers(4, size=10)}
    arrays |= {"x_meta": rng.normal(size=(7, 5)), "y_meta": rng.integers(4, size=7)}
    w = {"w1": draw(5, 8), "b1": 0.1 * draw(8)}
    if bn:
        w |= {"gamma": 1 + 0.1 * draw(8), "beta": 0.1 * draw(8)}
    w |= {"w2": draw(8, 4), "b2": 0.1 * draw(4)}
    theta = {"v1": draw(1, 20), "c1": draw(20), "v2": draw(20, 1), "c2": draw(1)}
    arrays |= {"alpha": 0.3, "beta": 0.2}
    data = [arrays[k] for k in ("x", "y", "x_meta", "y_meta", "alpha", "beta")]
    for method, normalised in (("mwnet", False), ("mwnet_normalised", True)):
        found = step(w, theta, *data, normalised=normalised)
        arrays |= {f"{method}/{k}": v for k, v in found.items()}
    arrays |= {f"w/{k}": v for k, v in w.items()} | {f"theta/{k}": v for k, v in theta.items()}
    return arrays
