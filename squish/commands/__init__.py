"""The commands of `squish`: short bodies that import what they need when they run, and what they print."""
