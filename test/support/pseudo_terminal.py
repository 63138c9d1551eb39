"""Runs a command in a pseudo-terminal: pseudo_terminal.py ROWS COLUMNS KEYS COMMAND...

Prints what the terminal received and ends with the command's exit code. KEYS is a JSON list of
[text to wait for, keys to send then].
"""

import fcntl
import json
import os
import pty
import struct
import sys
import termios

rows, columns, keys = int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
pid, terminal = pty.fork()
if pid == 0:
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    os.execvp(sys.argv[4], sys.argv[4:])

seen = b""
while True:
    try:
        part = os.read(terminal, 65536)
    except OSError:  # Linux: the other side is closed
        break
    if not part:
        break
    seen += part
    os.write(1, part)
    if keys and keys[0][0].encode() in seen:
        seen = b""
        os.write(terminal, keys.pop(0)[1].encode())
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) % 256)
