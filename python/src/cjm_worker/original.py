"""Starts a worker of the published Python package on a private Unix socket.

``python original.py <socket> <command...>``: that package takes a listening descriptor (``--fd``),
which Node cannot hand over, so this binds it and becomes the command. Run by the interpreter of
the tool's own environment, as a file: it needs nothing but the standard library.
"""

import os
import socket
import sys


def main() -> None:
    path, command = sys.argv[1], sys.argv[2:]
    os.umask(0o177)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(128)
    os.umask(0o022)
    listener.set_inheritable(True)
    os.execvp(command[0], [*command, "--fd", str(listener.fileno())])


if __name__ == "__main__":
    main()
