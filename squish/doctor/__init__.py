"""`squish doctor`: looks at what Squish stands on, and says of each thing whether it is well and what mends it."""
