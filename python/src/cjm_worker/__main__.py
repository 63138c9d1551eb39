"""``python -m cjm_worker module:Class`` serves that capability."""

import sys

from .process import serve_spec

if len(sys.argv) != 2:
    raise SystemExit("usage: python -m cjm_worker <module:Class>")
serve_spec(sys.argv[1])
