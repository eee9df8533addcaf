"""Joins requests that come at the same time into one call of a model."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Mapping

import numpy as np

from tf_mwnet.serve.models import Signature

Arrays = Mapping[str, np.ndarray]


class Batches:
    """Calls signatures in a thread, for several requests at a time.

    The rows of a request are computed with those of others that come within ``delay`` seconds, up to
    ``size`` rows. Exported models treat rows independently, so that this does not change an answer.

    Args:
        size: rows of a call; a request that has more is one call.
        delay: seconds to wait for further requests, 0 for none.
    """

    def __init__(self, size: int, delay: float) -> None:
        self.size, self.delay = size, delay
        self._waiting: dict[tuple, list[tuple[Arrays, asyncio.Future]]] = {}
        self._threads = concurrent.futures.ThreadPoolExecutor(1, "model")
        self._calls: set[asyncio.Task] = set()

    async def __call__(self, signature: Signature, arrays: Arrays) -> dict[str, np.ndarray]:
        """Computes a signature's outputs of one request's arrays, see `Signature.tensors`."""
        loop = asyncio.get_running_loop()
        key = (id(signature), *(x.shape[1:] for x in arrays.values()))
        future: asyncio.Future = loop.create_future()
        waiting = self._waiting.setdefault(key, [])
        if waiting and self._rows(waiting) + rows(arrays) > self.size:
            self._start(signature, key)
            waiting = self._waiting.setdefault(key, [])
        waiting.append((arrays, future))
        if not self.delay or self._rows(waiting) >= self.size:
            self._start(signature, key)
        elif len(waiting) == 1:
            loop.call_later(self.delay, self._start_if_waiting, signature, key, waiting)
        return await future

    @staticmethod
    def _rows(waiting: list[tuple[Arrays, asyncio.Future]]) -> int:
        return sum(rows(arrays) for arrays, _ in waiting)

    def _start_if_waiting(self, signature: Signature, key: tuple, waiting: list) -> None:
        if self._waiting.get(key) is waiting:
            self._start(signature, key)

    def _start(self, signature: Signature, key: tuple) -> None:
        task = asyncio.ensure_future(self._call(signature, self._waiting.pop(key)))
        self._calls.add(task)  # the loop alone does not keep it
        task.add_done_callback(self._calls.discard)

    async def _call(self, signature: Signature, requests: list[tuple[Arrays, asyncio.Future]]) -> None:
        whole = {
            name: np.concatenate([arrays[name] for arrays, _ in requests]) for name in requests[0][0]
        }
        try:
            loop = asyncio.get_running_loop()
            answers = await loop.run_in_executor(self._threads, signature, whole)
        except Exception as error:
            for _, future in requests:
                if not future.done():
                    future.set_exception(error)
            return
        start = 0
        for arrays, future in requests:
            end = start + rows(arrays)
            if not future.done():  # the client may have gone
                future.set_result({name: y[start:end] for name, y in answers.items()})
            start = end


def rows(arrays: Arrays) -> int:
    """Returns the number of rows of a request's arrays."""
    return len(next(iter(arrays.values())))
