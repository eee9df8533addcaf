"""The benchmark's peer: plain training and Meta-Weight-Net in PyTorch, in a process of its own.

The steps are those of the authors' code for Meta-Weight-Net: a copy of the classifier takes the virtual
step, the meta gradient goes back through it, and the batch passes through the classifier again. Network,
sizes, optimizers and number of threads are those of the other modes. ``python -m
tf_mwnet.benchmark.peer`` reads names of modes from stdin, takes a step of each, and answers with a line.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from tf_mwnet.errors import UserError

PEERS = ("torch",)
MODES = {"peer_plain": "plain", "peer_mwnet": "exact"}  # and the mode that each is compared with


class Peer:
    """A process that takes training steps in PyTorch.

    Args:
        network: "resnet32".
        batch, size, classes: as in `modes.Setting`.
        threads: number of threads of its kernels.

    Raises:
        UserError: the network is another one, or PyTorch is missing.
    """

    def __init__(self, network: str, batch: int, size: int, classes: int, threads: int) -> None:
        if network != "resnet32":
            raise UserError(f"peer got the network '{network}'; allowed: resnet32")
        line = [sys.executable, "-m", "tf_mwnet.benchmark.peer"]
        line += [str(n) for n in (batch, size, classes, threads)]
        self.process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._answer()  # it is ready

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise UserError("the peer ended; allowed: with PyTorch, pip install 'tf-mwnet[peer]'")
        return json.loads(line)

    def step(self, mode: str) -> float:
        """Takes one step of a mode in `MODES`; returns the loss before it."""
        assert self.process.stdin is not None
        self.process.stdin.write(mode + "\n")
        self.process.stdin.flush()
        return self._answer()["loss"]

    def close(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.communicate()


def steps(batch: int, size: int, classes: int) -> dict[str, Callable[[], float]]:
    """Makes the steps, mode -> function that takes one and returns the loss."""
    import torch
    from torch import nn
    from torch.func import functional_call

    torch.manual_seed(0)
    functions = nn.functional

    class Block(nn.Module):
        def __init__(self, before: int, filters: int, stride: int) -> None:
            super().__init__()
            self.first = nn.Conv2d(before, filters, 3, stride, 1, bias=False)
            self.second = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
            self.norms = nn.ModuleList([nn.BatchNorm2d(filters), nn.BatchNorm2d(filters)])
            self.extra, self.stride = (filters - before) // 2, stride

        def forward(self, x: Any) -> Any:
            y = self.norms[1](self.second(functions.relu(self.norms[0](self.first(x)))))
            if self.stride > 1:
                x = functions.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.extra, self.extra))
            return functions.relu(x + y)

    class ResNet32(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            first = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
            self.start = nn.Sequential(first, nn.BatchNorm2d(16), nn.ReLU())
            widths = [16] * 6 + [32] * 5 + [64] * 5
            pairs = itertools.pairwise(widths)
            self.blocks = nn.Sequential(*(Block(a, b, 1 + (a != b)) for a, b in pairs))
            self.last = nn.Linear(64, classes)

        def forward(self, x: Any) -> Any:
            return self.last(self.blocks(self.start(x)).mean((2, 3)))

    def data() -> tuple[Any, Any]:
        return torch.randn(batch, 3, size, size), torch.randint(classes, (batch,))

    (x, y), (x_meta, y_meta) = data(), data()
    net = ResNet32()
    weight_net = nn.Sequential(nn.Linear(1, 100), nn.ReLU(), nn.Linear(100, 1), nn.Sigmoid())
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=5e-4)
    meta_optimizer = torch.optim.Adam(weight_net.parameters(), 1e-3)

    def weighted(logits: Any, learning: bool) -> Any:
        each = functions.cross_entropy(logits, y, reduction="none")
        with torch.set_grad_enabled(learning):
            weights = weight_net(each.detach()[:, None])[:, 0]
        return (each * weights).sum() / weights.sum()

    def update(loss: Any) -> float:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    def plain() -> float:
        return update(functions.cross_entropy(net(x), y))

    def mwnet() -> float:
        copied = {k: v.detach().clone().requires_grad_() for k, v in net.named_parameters()}
        buffers = {k: v.clone() for k, v in net.named_buffers()}
        loss = weighted(functional_call(net, (copied, buffers), (x,)), learning=True)
        slopes = torch.autograd.grad(loss, list(copied.values()), create_graph=True)
        pairs = zip(copied.items(), slopes, strict=True)
        virtual = {k: v - 0.1 * slope for (k, v), slope in pairs}
        logits = functional_call(net, (virtual, buffers), (x_meta,))
        meta_optimizer.zero_grad()
        functions.cross_entropy(logits, y_meta).backward()
        meta_optimizer.step()
        return update(weighted(net(x), learning=False))

    return {"peer_plain": plain, "peer_mwnet": mwnet}


def main(arguments: list[str]) -> int:
    """Answers the names of modes on stdin until it ends."""
    import torch

    batch, size, classes, threads = map(int, arguments)
    torch.set_num_threads(threads)
    functions = steps(batch, size, classes)
    print(json.dumps({"torch": torch.__version__}), flush=True)
    for line in sys.stdin:
        print(json.dumps({"loss": functions[line.strip()]()}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
