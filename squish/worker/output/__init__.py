"""From a row's tokens to what its client reads: text, thoughts, calls, log-probabilities."""
