"""What goes along with a message: files, documents and folders on this machine, and pages of the web, all as text.

It knows no screen and no engine. Nothing is read from the network unless the user agreed.
"""
