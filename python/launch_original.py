"""Starts a worker of the published package `cjm-substrate` on a Unix socket of this host.

    python launch_original.py <socket> <command...>

That package takes a listening descriptor (`--fd`), which Node cannot hand over: this binds the
socket and becomes the command. A worker that knows no token is then reached by its owner only.
"""

import os
import socket
import sys

path, *command = sys.argv[1:]
listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
mask = os.umask(0o177)
listener.bind(path)
os.umask(mask)
listener.listen(128)
listener.set_inheritable(True)
os.execvp(command[0], [*command, "--fd", str(listener.fileno())])
