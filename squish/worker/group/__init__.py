"""One model over several processes: rank 0 decides, the others repeat its forwards."""
