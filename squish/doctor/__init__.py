"""`squish doctor`: looks at what Squish stands on, and says of each thing whether it works and how to fix it."""
