"""How the front process and a worker talk: frames, and the process at the other end."""
