"""One model over several machines: which hosts there are, what is on each, and how a rank starts on it."""
