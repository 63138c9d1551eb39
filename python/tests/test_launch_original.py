"""The launcher of workers written for the published package."""

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

LAUNCHER = Path(__file__).parents[1] / "launch_original.py"

SERVER = """
import socket, sys
assert sys.argv[1:4] == ["--module", "m", "--fd"], sys.argv
listener = socket.socket(fileno=int(sys.argv[4]))
connection, _ = listener.accept()
connection.sendall(b"served by the command")
connection.close()
"""


def test_the_command_serves_on_the_socket_that_only_its_owner_reaches(tmp_path: Path) -> None:
    path = tmp_path / "w.sock"
    script = tmp_path / "server.py"
    script.write_text(SERVER)
    command = [sys.executable, str(script), "--module", "m"]
    process = subprocess.Popen([sys.executable, str(LAUNCHER), str(path), *command])
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            while client.connect_ex(str(path)) != 0:
                assert process.poll() is None
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
            assert client.recv(100) == b"served by the command"
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
