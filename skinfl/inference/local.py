"""Diagnosis with the clinic and the server in one process, for trying and measuring.

It does what :class:`~skinfl.inference.clinic.remote.RemoteModel` does, encryption included. Who has the
model and the image in one place needs none.
"""

from __future__ import annotations

import numpy as np

from skinfl.errors import ModelError
from skinfl.inference.circuit.batch import BatchCircuit
from skinfl.inference.circuit.latency import LatencyCircuit
from skinfl.inference.circuit.prepare import Served
from skinfl.inference.clinic.client import BatchClient, LatencyClient


class LocalModel:
    """Client and server in one process.

    Raises :class:`~skinfl.errors.ModelError` for a network that encrypted inference does not take.
    """

    def __init__(self, served: Served):
        self.info = served.info
        self._circuit = LatencyCircuit(served.network, served.bounds)
        self._batch = BatchCircuit(served.network, served.bounds) if served.info.batch else None
        self._client = LatencyClient(self._circuit.spec)
        self._keys = self._circuit.keys(*self._client.evaluation_keys())

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Return the logits of normalised images, shape (n, channels, size, size), one after another."""
        answers = [self._circuit.infer(self._client.encrypt(image), self._keys) for image in images]
        return np.array([self._client.decrypt(answer) for answer in answers])

    def batch_logits(self, images: np.ndarray) -> np.ndarray:
        """Return the same by batches."""
        if self._batch is None:
            raise ModelError("this model was not prepared for batches: prepare it with batches=True")
        return BatchClient(self._batch.spec).logits(images, self._batch.infer)
