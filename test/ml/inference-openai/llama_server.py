"""llama.cpp's own HTTP server from a Python wheel: `llama_server.py <port> <model> [adapter ...]`.

It ends when its parent does, or on SIGTERM.
"""

import signal
import sys

import xllamacpp

port, model, *adapters = sys.argv[1:]
params = xllamacpp.CommonParams()
params.model.path = model
params.port = int(port)
params.n_ctx = 1024
params.n_parallel = 2
params.kv_unified = False
params.cpuparams.n_threads = 1
params.cpuparams_batch.n_threads = 1
params.n_threads_http = 8
params.embedding = False
params.endpoint_slots = True
params.fit_params = False
params.warmup = False
params.lora_init_without_apply = True
loaded = []
for path in adapters:
    info = xllamacpp.CommonAdapterLoraInfo()
    info.path = path
    info.scale = 1.0
    loaded.append(info)
params.lora_adapters = loaded
server = xllamacpp.Server(params)
print(f"listening at {server.listening_address}", flush=True)
signal.sigwait({signal.SIGTERM, signal.SIGINT})
