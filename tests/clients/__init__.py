"""Programs that other people wrote, against our server: `make clients` installs them into build/clients and runs them.

A new one is a line in checks.py, and a program in programs/ where it is a library.
"""
