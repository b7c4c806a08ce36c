"""Makes one exchange as another user: FOLDER SOCKET UID GROUP... ; the request comes on standard input."""

import os
import socket
import sys


def main() -> None:
    folder, name, uid, *groups = sys.argv[1:]
    # Other users cannot come through the directories above; the working directory stays.
    os.chdir(folder)
    os.setgroups([int(group) for group in groups])
    os.setgid(int(uid))
    os.setuid(int(uid))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(60)
        connection.connect(name)
        try:
            connection.sendall(sys.stdin.buffer.read())
            connection.shutdown(socket.SHUT_WR)
            while data := connection.recv(65_536):
                sys.stdout.buffer.write(data)
        except (BrokenPipeError, ConnectionResetError):
            pass


if __name__ == "__main__":
    main()
