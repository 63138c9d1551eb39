"""llama.cpp's own HTTP server from a Python wheel: `llama_server.py <port> <model> [adapter ...]`.

Its process id is written beside the model.
"""

import os
import signal
import sys

import xllamacpp

# Before the server makes its threads, so that none of them takes the signal.
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})

port, model, *adapters = sys.argv[1:]
with open(f"{model}.pid", "w") as file:
    file.write(str(os.getpid()))
params = xllamacpp.CommonParams()
params.model.path = model
params.api_keys = [os.environ["LLAMA_API_KEY"]]
params.port = int(port)
params.n_ctx = 8192
params.n_parallel = 2
params.kv_unified = False
# A prompt from the cache gives other last digits, and with them another text for a seed.
params.cache_prompt = False
params.cpuparams.n_threads = 1
params.cpuparams_batch.n_threads = 1
params.n_threads_http = 8
params.fit_params = False
params.warmup = False


def adapter(path):
    info = xllamacpp.CommonAdapterLoraInfo()
    info.path = path
    info.scale = 1.0
    return info


params.lora_adapters = [adapter(path) for path in adapters]
server = xllamacpp.Server(params)
print(f"listening at {server.listening_address}", flush=True)
signal.sigwait({signal.SIGTERM, signal.SIGINT})
os._exit(0)
