"""Speculation: guessing tokens that the model then checks in one pass, so that a pass can give more than one."""
