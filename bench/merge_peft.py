"""The peer of merge-kernel.ts: reads the tensors, then times peft's ties once per byte of stdin."""

import sys
import time

import numpy
import torch
from peft.utils.merge_utils import ties

inputs, tensors, length = (int(text) for text in sys.argv[1:])
raw = sys.stdin.buffer.read(inputs * tensors * length * 4)
data = torch.from_numpy(numpy.frombuffer(raw, dtype=numpy.float32).copy())
data = data.reshape(inputs, tensors, length)
weights = torch.tensor([1, 0.5, 0.7])
while sys.stdin.buffer.read(1):
    started = time.perf_counter()
    for tensor in range(tensors):
        ties([data[i, tensor] for i in range(inputs)], weights, 0.5)
    print(time.perf_counter() - started, flush=True)
