"""The server as the screens show it: the one of this app, or the one that it is connected to."""
